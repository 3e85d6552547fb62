package main

import (
	"context"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

type unhostCmd struct {
	Space tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	DID   string            `arg:"" help:"The host's did:key, as peers lists it." name:"did"`
	ownerSigned
}

// Run prints the text that removes a host, or completes it with its signature.
func (c *unhostCmd) Run(ctx context.Context, p *program) error {
	client, datadir, err := p.node()
	if err != nil {
		return err
	}
	file := pendingFile(datadir, "unhost", c.Space.String()+" "+c.DID)
	if c.Signature == "" {
		return c.ask(p, file, func(string) (string, error) { return client.Unhosting(ctx, c.Space, c.DID) })
	}
	return c.complete(file, func(header string) error {
		if err := client.Revoke(ctx, header); err != nil {
			return err
		}
		fmt.Fprintf(p.out, "removed %s from %s\n", c.DID, c.Space)
		return nil
	})
}
