package main

import (
	"context"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

type unhostCmd struct {
	Space tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	DID   string            `arg:"" help:"The host, by its did:key, its alias, or as peers lists it." name:"did"`
	ownerSigned
	answer
}

// Run prints the text that removes a host, or completes it with its signature.
func (c *unhostCmd) Run(ctx context.Context, p *program) error {
	client, datadir, err := p.node()
	if err != nil {
		return err
	}
	v, err := client.Space(ctx, c.Space)
	if err != nil {
		return err
	}
	if did, ok := hostNamed(v.Hosts, c.DID); ok && did != c.DID {
		fmt.Fprintf(p.err, "%s is %s\n", c.DID, did) // names may be of two hosts one after the other
		c.DID = did
	}
	file := pendingFile(datadir, "unhost", c.Space.String()+" "+c.DID)
	if c.Signature == "" && c.DID == v.DID {
		fmt.Fprintln(p.err, "This is the node itself: once it is signed, this node answers 403 for the Space, and what other hosts do not have of it is lost to apps.")
	}
	asked, err := c.askUnlessSigned(p, file, func(string) (string, error) { return client.Unhosting(ctx, c.Space, c.DID) })
	if err != nil || asked {
		return err
	}
	return c.complete(file, func(header string) error {
		if err := client.Revoke(ctx, header); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.out, map[string]string{"removed": c.DID, "space": c.Space.String()})
		}
		fmt.Fprintf(p.out, "removed %s from %s\n", c.DID, c.Space)
		return nil
	})
}
