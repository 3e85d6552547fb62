package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type statusCmd struct {
	Once bool `help:"Print once, also on a terminal."`
	listing
}

// Help explains what is shown.
func (*statusCmd) Help() string { return legend }

// Run prints the state of the node, again and again on a terminal.
func (c *statusCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	if c.JSON {
		return c.printJSON(ctx, p, client)
	}
	if c.Once || !terminal(p.out) {
		return c.print(ctx, p.out, client)
	}
	return live(ctx, p.out, func(w io.Writer) error { return c.print(ctx, w, client) })
}

func (c *statusCmd) printJSON(ctx context.Context, p *program, client *admin.Client) error {
	info, err := client.Node(ctx)
	if err != nil {
		return err
	}
	all, err := client.Spaces(ctx)
	if err != nil {
		return err
	}
	return printJSON(p.out, struct {
		Node   node.Info        `json:"node"`
		Spaces []node.SpaceView `json:"spaces"`
	}{info, all})
}

func (c *statusCmd) print(ctx context.Context, out io.Writer, client *admin.Client) error {
	info, err := client.Node(ctx)
	if err != nil {
		return err
	}
	all, err := client.Spaces(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "node  %s  (%s)\npeer  %s\n", info.NodeID, info.Version, info.PeerID)
	for _, a := range info.Addrs {
		fmt.Fprintf(out, "addr  %s\n", a)
	}
	fmt.Fprintln(out)
	return c.printSpaces(out, all)
}

// live redraws a screen every second until the context ends.
func live(ctx context.Context, out io.Writer, draw func(io.Writer) error) error {
	const clear = "\x1b[H\x1b[2J"
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var screen bytes.Buffer
		if err := draw(&screen); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if _, err := io.WriteString(out, clear+screen.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// terminal reports whether somebody looks at what is written.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
