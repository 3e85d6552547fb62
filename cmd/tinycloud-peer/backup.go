package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
)

type backupCmd struct {
	Dir string `arg:"" help:"Directory to write; it must not be there. A node restored from it has it as storage.datadir."`
	answer
}

// Run has the running node back itself up.
func (c *backupCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	b, err := client.Backup(ctx, dir)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, b)
	}
	fmt.Fprintf(p.out, "wrote %s: database and %d values of %s (%d hard links)\n", b.Dir, b.Values, progress.Bytes(b.Bytes), b.Linked)
	if !b.Secret {
		fmt.Fprintln(p.out, "The secret is in the configuration and not in the backup: keep both.")
	}
	return nil
}
