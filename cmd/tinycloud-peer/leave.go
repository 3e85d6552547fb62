package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
)

type leaveCmd struct {
	Space  tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Delete bool              `help:"Delete what is here of the Space. The node must be stopped."`
	Yes    bool              `help:"Do not ask."`
	ownerSigned
}

// Help tells the two steps.
func (*leaveCmd) Help() string {
	return "Without --delete it prints the text by which the owner removes this node from the Space, or completes it, as \"unhost\" does: " +
		"then other hosts know, and this one answers 403. With --delete, on a stopped node, it deletes the Space's history and values here, " +
		"whether the owner has removed the node or not; other hosts keep theirs."
}

// Run leaves a Space.
func (c *leaveCmd) Run(ctx context.Context, p *program) error {
	if c.Delete {
		return p.offline(ctx, func(d *node.Data) error { return c.delete(ctx, p, d) })
	}
	client, _, err := p.node()
	if err != nil {
		return err
	}
	v, err := client.Space(ctx, c.Space)
	if err != nil {
		return err
	}
	u := unhostCmd{Space: c.Space, DID: v.DID, ownerSigned: c.ownerSigned}
	return u.Run(ctx, p)
}

func (c *leaveCmd) delete(ctx context.Context, p *program, d *node.Data) error {
	if !d.Store.Known(c.Space) {
		return fmt.Errorf("%s is not here", c.Space)
	}
	if err := c.tell(ctx, p, d); err != nil {
		return err
	}
	if !c.Yes {
		fmt.Fprintf(p.err, "Its name, %q, deletes it: ", c.Space.Name())
		in := bufio.NewScanner(os.Stdin)
		if in.Scan(); in.Text() != c.Space.Name() {
			return errors.New("nothing was deleted")
		}
	}
	freed, err := transfer.Forget(ctx, d, c.Space)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "deleted %s, and %d values that were files, %s\n", c.Space, freed.Values, size(int64(freed.Bytes)))
	return nil
}

// tell says what is lost.
func (c *leaveCmd) tell(ctx context.Context, p *program, d *node.Data) error {
	if !d.Store.Hosted(c.Space) {
		fmt.Fprintf(p.err, "%s was imported here and is not served.\n", c.Space)
		return nil
	}
	st, err := d.Store.Status(ctx, c.Space)
	if err != nil {
		return err
	}
	hosts, err := d.Store.Hosts(ctx, c.Space)
	if err != nil {
		return err
	}
	others := 0
	for _, h := range hosts {
		if !h.Self {
			others++
		}
	}
	fmt.Fprintf(p.err, "%s has %d keys here, %s, and %d epochs of history.\n", c.Space, st.Keys, size(st.Bytes), st.Epochs)
	if others == 0 {
		fmt.Fprintln(p.err, "NO OTHER HOST IS KNOWN: all of it is lost. \"export\" keeps it in a file.")
	} else {
		fmt.Fprintf(p.err, "%d other hosts are known. What they do not have yet is lost.\n", others)
	}
	return nil
}
