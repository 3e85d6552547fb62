package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/reference"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

type importReferenceCmd struct {
	Database string `required:"" placeholder:"PATH|URL" help:"Database of the reference node: a SQLite file or postgres://…. That node must be stopped."`
	Blocks   string `required:"" placeholder:"DIR|s3://BUCKET" help:"Its storage.blocks.path or bucket; credentials and region of a bucket come from the AWS_* variables."`
	Endpoint string `name:"blocks-endpoint" placeholder:"URL" help:"Its storage.blocks.endpoint, of a bucket that is not at AWS."`
	Secret   string `env:"REFERENCE_SECRET" placeholder:"SECRET" help:"Its keys.secret (better in $$REFERENCE_SECRET). This node takes it as its own, so that it stays the host its Spaces were delegated to. Version 1.16.0 cannot be read without it."`
	Files    string `name:"databases" placeholder:"DIR" help:"Where its SQL databases are saved, each as a file; \"reference-databases\" in the data directory by default."`
	OwnKeys  bool   `help:"Use the secret to read the data only: this node keeps its own keys, and each owner has to delegate to it."`
}

// Run takes the data over; it may be repeated, and goes on where it was interrupted. The node is stopped.
func (c *importReferenceCmd) Run(ctx context.Context, p *program) error {
	cfg, warnings, err := p.load()
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(p.err, "tinycloud-peer:", w)
	}
	theirs, err := c.keys(ctx, cfg)
	if err != nil {
		return err
	}
	where, err := config.ParseDatabase(c.Database)
	if err != nil {
		return fmt.Errorf("--database: %w", err)
	}
	key, networks := derived(theirs)
	from, err := reference.Open(ctx, where, key)
	if errors.Is(err, reference.ErrEncrypted) {
		return fmt.Errorf("%w: give it with --secret", err)
	}
	if err != nil {
		return err
	}
	defer from.Close()
	blocks, closeBlocks, err := c.blocks(ctx)
	if err != nil {
		return err
	}
	defer closeBlocks()
	log := slog.New(logHandler(p.err, cfg))
	to, err := node.OpenData(ctx, cfg, log, servicesOf(cfg, log)...)
	if err != nil {
		return err
	}
	o := &transfer.TakeOver{From: from, Blocks: blocks, To: to, Source: networks, Log: p.err, Files: c.Files}
	if o.Files == "" && cfg.Storage.Datadir != "" {
		o.Files = filepath.Join(cfg.Storage.Datadir, "reference-databases")
	}
	out, err := o.Run(ctx)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return c.print(p, out, o)
}

// blocks opens where the values are.
func (c *importReferenceCmd) blocks(ctx context.Context) (reference.Blocks, func(), error) {
	bucket, ok := strings.CutPrefix(c.Blocks, "s3://")
	if !ok {
		if info, err := os.Stat(c.Blocks); err != nil || !info.IsDir() {
			return nil, nil, fmt.Errorf("--blocks: %s is no directory", c.Blocks)
		}
		return reference.Dir(c.Blocks), func() {}, nil
	}
	b, err := reference.OpenBucket(ctx, blockstore.S3FromEnv(c.Endpoint, strings.TrimSuffix(bucket, "/"), os.Getenv))
	if err != nil {
		return nil, nil, fmt.Errorf("--blocks: %w", err)
	}
	return b, func() { _ = b.Close() }, nil // it was only read
}

// derived are the key of the reference's encrypted columns, and what opens its encryption networks, nil without its keys.
func derived(theirs *hostkeys.Static) (*[32]byte, *encryption.Source) {
	if theirs == nil {
		return nil, nil
	}
	key := theirs.Derive(hostkeys.ContextWebhookSecrets)
	return &key, &encryption.Source{
		Seal: theirs.Derive(hostkeys.ContextNetworkSeal), Node: hostkeys.DIDKey(theirs.NodeKey().Public().(ed25519.PublicKey)),
	}
}

// keys takes the secret, and returns the reference's keys, nil without one.
func (c *importReferenceCmd) keys(ctx context.Context, cfg config.Config) (*hostkeys.Static, error) {
	if c.Secret == "" {
		return nil, nil
	}
	secret, err := config.ParseSecret(c.Secret)
	if err != nil {
		return nil, fmt.Errorf("--secret: %w", err)
	}
	theirs, err := hostkeys.New(secret.Bytes())
	if err != nil {
		return nil, err
	}
	if !c.OwnKeys {
		if err := node.CheckAdopted(ctx, cfg, theirs); err != nil {
			return nil, fmt.Errorf("--secret: %w", err)
		}
		if err := cfg.AdoptSecret(secret); err != nil {
			return nil, fmt.Errorf("--secret: %w (with --own-keys this node keeps its own, and each owner has to delegate to it)", err)
		}
	}
	return theirs, nil
}

func (c *importReferenceCmd) print(p *program, out []transfer.Outcome, o *transfer.TakeOver) error {
	odd := &o.Odd
	waiting := 0
	for _, x := range out {
		state := "hosted"
		if !x.Hosted {
			state = "waits for its owner to delegate it to " + hostkeys.DIDKey(x.Host[:])
			waiting++
		}
		fmt.Fprintf(p.out, "%s\n  %s\n  %d epochs read, %d of them new; %d values of %s new\n", x.Space, state, x.Read, x.New, x.Values, progress.Bytes(x.Bytes))
		if x.Hosted {
			fmt.Fprintf(p.out, "  %d epochs, %d of them void, %d keys, %d values missing\n", x.Epochs, x.Void, x.Keys, x.Wants)
		}
	}
	printReferenceDatabases(p.out, out)
	if waiting > 0 {
		fmt.Fprintf(p.out, "\n%d spaces are not served yet: this node has other keys than the one the data is of. A client that signs in\n"+
			"has its owner delegate the space to this node; so does \"tinycloud-peer host SPACE\" while it runs.\n", waiting)
	}
	if o.Networks > 0 {
		fmt.Fprintf(p.out, "\n%d encryption networks new\n", o.Networks)
	}
	if odd.Len() > 0 {
		fmt.Fprintf(p.out, "\nodd in the data:\n")
		odd.Print(p.out)
	}
	if n := odd.Count(transfer.FoundOtherValue) + odd.Count(transfer.FoundLate) + odd.Count(transfer.FoundNetwork) + odd.Count(transfer.FoundNoSQLite); n > 0 {
		return fmt.Errorf("%d things could not be taken over as they were", n)
	}
	return nil
}

// printReferenceDatabases says where the SQL databases are, and how they get into their Spaces.
func printReferenceDatabases(out io.Writer, spaces []transfer.Outcome) {
	some := false
	for _, x := range spaces {
		for _, d := range x.Databases {
			if !some {
				fmt.Fprint(out, "\nSQL databases, saved as files: who may write to their Spaces loads them, once, signed in by \"tinycloud-peer login\"\n")
				some = true
			}
			used := d.Name
			if len(d.Paths) > 0 {
				used = d.Paths[0]
			}
			fmt.Fprintf(out, "%s %q: %d tables, %d rows, %s\n", x.Space, d.Name, d.Tables, d.Rows, progress.Bytes(d.Bytes))
			if len(d.Paths) > 1 {
				fmt.Fprintf(out, "  several paths were one database there, and are one each here: %q\n", d.Paths)
			}
			fmt.Fprintf(out, "  tinycloud-peer load %s %s %s\n", x.Space, quoteShell(used), quoteShell(d.File))
		}
	}
}

// quoteShell is a text as a word of a shell; what a terminal would take for a command of its own is escaped.
func quoteShell(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "$'" + strings.ReplaceAll(strings.Trim(strconv.QuoteToASCII(text), `"`), "'", `\'`) + "'"
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(plainShell, r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

const plainShell = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+="
