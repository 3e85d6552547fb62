package main

import (
	"context"
	"fmt"
	"path/filepath"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
)

type gcCmd struct{ answer }

// Run frees what no key holds. A running node does the same by itself now and then, but not in a bucket.
func (c *gcCmd) Run(ctx context.Context, p *program) error {
	return p.offline(ctx, func(d *node.Data) error {
		var freed capstore.Freed
		var unknown []tinycloud.SpaceID
		err := d.Store.Alone(ctx, func(ctx context.Context) (err error) {
			freed, unknown, err = transfer.Collect(ctx, d, p.err)
			return err
		})
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.out, map[string]any{"values": freed.Values, "bytes": freed.Bytes, "unknownSpaces": append([]tinycloud.SpaceID{}, unknown...)})
		}
		fmt.Fprintf(p.out, "freed %d values, %s\n", freed.Values, progress.Bytes(freed.Bytes))
		for _, space := range unknown {
			fmt.Fprintf(p.out, "left alone: values of %s, which the database does not know\n", space)
		}
		return nil
	})
}

type compactCmd struct{ answer }

// Run makes the files as small as what is in them.
func (c *compactCmd) Run(ctx context.Context, p *program) error {
	cfg, _, err := p.load()
	if err != nil {
		return err
	}
	return p.offline(ctx, func(d *node.Data) error {
		path := cfg.Storage.Database.Path()
		freed, err := transfer.Compact(ctx, d, path, path+"-wal", filepath.Join(cfg.Storage.Blocks.Path, ".index"))
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.out, map[string]int64{"bytes": max(freed, 0)})
		}
		fmt.Fprintf(p.out, "freed %s\n", progress.Bytes(max(freed, 0)))
		return nil
	})
}
