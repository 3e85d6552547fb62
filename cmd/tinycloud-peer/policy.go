package main

import (
	"context"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type policyCmd struct {
	Space  tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Policy string            `arg:"" optional:"" help:"eager: current values; lazy: what is read; all: those of the history too; default: as p2p.values says."`
	answer
}

// Run shows or changes which values this node fetches of a Space.
func (c *policyCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	var v node.PolicyView
	switch c.Policy {
	case "":
		v, err = client.Policy(ctx, c.Space)
	case "default":
		v, err = client.SetPolicy(ctx, c.Space, nil)
	default:
		v, err = client.SetPolicy(ctx, c.Space, new(capstore.Policy(c.Policy)))
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, v)
	}
	whose := "the node's"
	if v.Own {
		whose = "its own"
	}
	_, err = fmt.Fprintf(p.out, "policy  %s (%s)\nspace   %s\n", v.Policy, whose, c.Space)
	return err
}
