package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

type hostCmd struct {
	Space tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	ownerSigned
}

// Run prints the text, the same until it is used, or completes it with its signature.
func (c *hostCmd) Run(ctx context.Context, p *program) error {
	client, datadir, err := p.node()
	if err != nil {
		return err
	}
	file := hostFile(datadir, c.Space)
	if c.Signature == "" {
		did, err := client.HostDID(ctx, c.Space)
		if err != nil {
			return err
		}
		return c.ask(p, file, hostText(c.Space, did))
	}
	return c.complete(file, func(header string) error {
		done, err := client.Delegate(ctx, header)
		if err != nil {
			return err
		}
		if slices.Contains(done.Skipped, c.Space.String()) {
			return fmt.Errorf("accepted as %s, but it makes another node the host of %s", done.CID, c.Space)
		}
		fmt.Fprintf(p.out, "hosting %s\ndelegation %s\n", c.Space, done.CID)
		return nil
	})
}

func hostFile(datadir string, space tinycloud.SpaceID) string {
	return pendingFile(datadir, "host", space.String())
}

// hostText returns the text that waits for its signature, a new one if there is none for this key.
func hostText(space tinycloud.SpaceID, did string) func(old string) (string, error) {
	return func(old string) (string, error) {
		if strings.Contains(old, "\nURI: "+did+"\n") {
			return old, nil
		}
		return capstore.HostMessage(space, tinycloud.Principal(did), rand.Text(), time.Now())
	}
}
