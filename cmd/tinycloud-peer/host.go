package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
)

type hostCmd struct {
	Space     tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Signature string            `help:"The owner's personal_sign of the text that was printed." placeholder:"0x…"`
	Message   string            `help:"File with the text that was signed, if it is not the one printed last." placeholder:"FILE"`
}

// Run prints the text, the same until it is used, or completes it with its signature.
func (c *hostCmd) Run(ctx context.Context, p *program) error {
	client, datadir, err := p.node()
	if err != nil {
		return err
	}
	if c.Signature != "" {
		return c.complete(ctx, p, client, datadir)
	}
	did, err := client.HostDID(ctx, c.Space)
	if err != nil {
		return err
	}
	text, err := pendingText(datadir, c.Space, did)
	if err != nil {
		return err
	}
	fmt.Fprintln(p.err, "The Space's owner signs this text with personal_sign, without the line break at its end:")
	fmt.Fprintln(p.out, text)
	fmt.Fprintf(p.err, "Then: tinycloud-peer host %s --signature 0x…\n", c.Space)
	return nil
}

func (c *hostCmd) complete(ctx context.Context, p *program, client *admin.Client, datadir string) error {
	file := c.Message
	if file == "" {
		file = pendingFile(datadir, c.Space)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("text that was signed: %w", err)
	}
	header, err := capstore.HostDelegation(strings.TrimSuffix(string(text), "\n"), c.Signature)
	if err != nil {
		return err
	}
	done, err := client.Delegate(ctx, header)
	if err != nil {
		return err
	}
	if slices.Contains(done.Skipped, c.Space.String()) {
		return fmt.Errorf("accepted as %s, but it makes another node the host of %s", done.CID, c.Space)
	}
	if err := os.Remove(pendingFile(datadir, c.Space)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fmt.Fprintf(p.out, "hosting %s\ndelegation %s\n", c.Space, done.CID)
	return nil
}

// pendingFile is where the text waits for its signature.
func pendingFile(datadir string, space tinycloud.SpaceID) string {
	return filepath.Join(datadir, "pending", tinycloud.Sum([]byte(space.String())).String()[:32]+".siwe")
}

// pendingText returns the text that waits for its signature, a new one if there is none for this key.
func pendingText(datadir string, space tinycloud.SpaceID, did string) (string, error) {
	if old, err := os.ReadFile(pendingFile(datadir, space)); err == nil && strings.Contains(string(old), "\nURI: "+did+"\n") {
		return string(old), nil
	}
	text, err := capstore.HostMessage(space, tinycloud.Principal(did), rand.Text(), time.Now())
	if err != nil {
		return "", err
	}
	return text, savePending(datadir, space, text)
}

func savePending(datadir string, space tinycloud.SpaceID, text string) error {
	file := pendingFile(datadir, space)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o600)
}
