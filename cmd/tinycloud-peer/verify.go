package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
)

type verifyCmd struct{}

// Run verifies the data of the stopped node.
func (c *verifyCmd) Run(ctx context.Context, p *program) error {
	return p.offline(ctx, func(d *node.Data) error {
		n := 0
		err := transfer.Verify(ctx, d, p.err, func(x capstore.Damage) {
			n++
			if x.Space != "" {
				x.Space += ": "
			}
			fmt.Fprintf(p.out, "%s%s: %s\n", x.Space, x.What, x.Which)
		})
		if err == nil && n > 0 {
			err = fmt.Errorf("%d things are damaged", n)
		}
		if err == nil {
			fmt.Fprintln(p.out, "all is as it was signed")
		}
		return err
	})
}

// offline runs a command on the data of the stopped node.
func (p *program) offline(ctx context.Context, f func(*node.Data) error) error {
	cfg, _, err := p.load()
	if err != nil {
		return err
	}
	log := slog.New(logHandler(p.err, cfg))
	d, err := node.OpenData(ctx, cfg, log, servicesOf(cfg, log)...)
	if err != nil {
		return err
	}
	return errors.Join(f(d), d.Close())
}
