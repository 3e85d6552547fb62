package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
)

type hostCmd struct {
	Space   tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Renew   bool              `help:"Print a new text although this node is a host of the Space."`
	Domain  string            `placeholder:"NAME" help:"Domain that the text names, which wallets show; else localhost."`
	Expires time.Duration     `placeholder:"8760h" help:"How long the node is a host; else for ever."`
	ownerSigned
	answer
}

// Run prints the text, the same until it is used, or completes it with its signature.
func (c *hostCmd) Run(ctx context.Context, p *program) error {
	client, datadir, err := p.node()
	if err != nil {
		return err
	}
	file := hostFile(datadir, c.Space)
	if c.Signature == "" {
		text, err := c.text(ctx, p, client)
		if err != nil || text == nil {
			return err
		}
		if asked, err := c.askUnlessSigned(p, file, text); err != nil || asked {
			return err
		}
	}
	return c.complete(file, func(header string) error {
		done, err := client.Delegate(ctx, header)
		if err != nil {
			return err
		}
		if slices.Contains(done.Skipped, c.Space.String()) {
			return fmt.Errorf("accepted as %s, but it makes another node the host of %s", done.CID, c.Space)
		}
		if c.JSON {
			return printJSON(p.out, done)
		}
		fmt.Fprintf(p.out, "hosting %s\ndelegation %s\n", c.Space, done.CID)
		return nil
	})
}

// text is what the owner signs; nil, when it was told that nothing has to be signed.
func (c *hostCmd) text(ctx context.Context, p *program, client *admin.Client) (func(old string) (string, error), error) {
	v, err := client.Space(ctx, c.Space)
	switch {
	case err == nil && v.Standing == capstore.StandsHost && !c.Renew:
		until := "for ever"
		if v.Expires != nil {
			until = "until " + v.Expires.Format(time.RFC3339)
		}
		fmt.Fprintf(p.out, "already hosting %s, %s\n", c.Space, until)
		fmt.Fprintln(p.err, "For a new delegation: the same with --renew.")
		return nil, nil
	case err != nil && !errors.Is(err, tinycloud.ErrNotFound):
		return nil, err
	}
	did, err := client.HostDID(ctx, c.Space)
	if err != nil {
		return nil, err
	}
	terms := capstore.HostTerms{Domain: c.Domain}
	if c.Expires > 0 {
		terms.Expires = time.Now().Add(c.Expires)
	}
	return hostText(c.Space, did, terms), nil
}

func hostFile(datadir string, space tinycloud.SpaceID) string {
	return pendingFile(datadir, "host", space.String())
}

// hostText returns the text that waits for its signature, a new one if there is none for this key, or other terms are
// asked for.
func hostText(space tinycloud.SpaceID, did string, terms capstore.HostTerms) func(old string) (string, error) {
	return func(old string) (string, error) {
		if strings.Contains(old, "\nURI: "+did+"\n") && terms == (capstore.HostTerms{}) {
			return old, nil
		}
		return terms.Message(space, tinycloud.Principal(did), rand.Text(), time.Now())
	}
}
