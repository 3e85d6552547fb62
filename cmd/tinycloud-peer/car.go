package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

type exportCmd struct {
	Space tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	File  string            `arg:"" help:"File to write, - for standard output. One that is there is replaced when all is written."`
	answer
}

// Run exports a Space of the node.
func (c *exportCmd) Run(ctx context.Context, p *program) error {
	return p.still(ctx, func(d *node.Data) error {
		out, done, err := c.open(p)
		if err != nil {
			return err
		}
		x, err := transfer.Export(ctx, d, c.Space, out, p.err)
		if err = done(err); err != nil {
			return err
		}
		if c.JSON {
			to := p.out
			if c.File == "-" { // where the Space goes
				to = p.err
			}
			return printJSON(to, map[string]int64{"entries": x.Entries, "values": x.Values, "bytes": x.Bytes, "skipped": x.Skipped})
		}
		fmt.Fprintf(p.err, "%d entries, %d values, %s\n", x.Entries, x.Values, progress.Bytes(x.Bytes))
		if x.Skipped > 0 {
			fmt.Fprintf(p.err, "%d current values are not at this host and not in the file\n", x.Skipped)
		}
		return nil
	})
}

// open returns where to write, and what ends it: a file appears whole or not at all.
func (c *exportCmd) open(p *program) (io.Writer, func(error) error, error) {
	if c.File == "-" {
		return p.out, func(err error) error { return err }, nil
	}
	f, err := os.CreateTemp(filepath.Dir(c.File), ".export-*")
	if err != nil {
		return nil, nil, err
	}
	return f, func(err error) error {
		if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
			err = os.Rename(f.Name(), c.File)
		}
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
		return err
	}, nil
}

type importCmd struct {
	File string `arg:"" help:"File of export, - for standard input."`
	answer
}

// Run imports a file into the stopped node.
func (c *importCmd) Run(ctx context.Context, p *program) error {
	return p.offline(ctx, func(d *node.Data) (err error) {
		in := os.Stdin
		if c.File != "-" {
			if in, err = os.Open(c.File); err != nil {
				return err
			}
			defer in.Close()
		}
		x, err := transfer.Import(ctx, d, in, p.err)
		if c.JSON {
			return errors.Join(err, printJSON(p.out, map[string]any{
				"space": x.Space, "entries": x.Entries, "new": x.New, "values": x.Values, "bytes": x.Bytes,
				"hosted": x.Hosted, "host": hostkeys.DIDKey(x.Host[:]), "epochs": x.Epochs, "void": x.Void, "keys": x.Keys, "missing": x.Wants,
			}))
		}
		fmt.Fprintf(p.out, "%s: %d entries, %d of them new; %d values of %s new\n", x.Space, x.Entries, x.New, x.Values, progress.Bytes(x.Bytes))
		if err != nil {
			return err
		}
		if !x.Hosted {
			fmt.Fprintf(p.out, "The space is served once its owner delegates it to this host, %s:\nsee \"tinycloud-peer host %s\".\n", hostkeys.DIDKey(x.Host[:]), x.Space)
			return nil
		}
		fmt.Fprintf(p.out, "hosted: %d epochs, %d of them void, %d keys, %d values missing\n", x.Epochs, x.Void, x.Keys, x.Wants)
		return nil
	})
}
