package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

type verifyCmd struct{ answer }

// damaged is a thing that is not as it was signed.
type damaged struct {
	Space string `json:"space"` // "" when it is of none
	What  string `json:"what"`
	Which string `json:"which"`
}

// Run verifies the data of the node.
func (c *verifyCmd) Run(ctx context.Context, p *program) error {
	return p.still(ctx, func(d *node.Data) error {
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
	return p.on(ctx, cfg, f)
}

// on runs a command on the data of a configuration, and locks them meanwhile.
func (p *program) on(ctx context.Context, cfg config.Config, f func(*node.Data) error) error {
	log := slog.New(logHandler(p.err, cfg))
	d, err := node.OpenData(ctx, cfg, log, servicesOf(cfg, log)...)
	if err != nil {
		return err
	}
	return errors.Join(f(d), d.Close())
}

// still runs a command that changes nothing on the data of the node as they are at one moment: of a node that runs on SQLite
// on a copy, in which files of values are links if they can be.
func (p *program) still(ctx context.Context, f func(*node.Data) error) error {
	cfg, _, err := p.load()
	if err != nil {
		return err
	}
	if cfg.Storage.Datadir == "" || !cfg.Storage.OnFiles() {
		return p.on(ctx, cfg, f)
	}
	datadir, err := filepath.Abs(cfg.Storage.Datadir)
	if err != nil {
		return err
	}
	running := admin.Local(datadir)
	defer running.Close()
	if _, err := running.Node(ctx); err != nil { // it does not run, or work on its data tells why not
		return p.on(ctx, cfg, f)
	}
	dir, err := os.MkdirTemp(datadir, node.Copies)
	if err != nil {
		return err
	}
	b, err := running.Backup(ctx, filepath.Join(dir, "data"))
	if err == nil {
		err = p.on(ctx, cfg.On(b.Dir), f)
	}
	return errors.Join(err, os.RemoveAll(dir))
}
