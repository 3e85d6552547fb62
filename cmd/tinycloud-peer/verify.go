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

type verifyCmd struct{ answer }

// damaged is a thing that is not as it was signed.
type damaged struct {
	Space string `json:"space"` // "" when it is of none
	What  string `json:"what"`
	Which string `json:"which"`
}

// Run verifies the data of the stopped node.
func (c *verifyCmd) Run(ctx context.Context, p *program) error {
	return p.offline(ctx, func(d *node.Data) error {
		all := []damaged{}
		err := transfer.Verify(ctx, d, p.err, func(x capstore.Damage) {
			all = append(all, damaged{x.Space, x.What, x.Which})
			if c.JSON {
				return
			}
			if x.Space != "" {
				x.Space += ": "
			}
			fmt.Fprintf(p.out, "%s%s: %s\n", x.Space, x.What, x.Which)
		})
		if err == nil && c.JSON {
			err = printJSON(p.out, map[string][]damaged{"damaged": all})
		}
		if err == nil && len(all) > 0 {
			err = fmt.Errorf("%d things are damaged", len(all))
		}
		if err == nil && !c.JSON {
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
