package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// ownerSigned is a verb in two steps: it prints a text for the owner's wallet, and completes it with the
// signature.
type ownerSigned struct {
	Signature string `help:"The owner's personal_sign of the text that was printed." placeholder:"0x…"`
	Message   string `help:"File with the text that was signed, if it is not the one printed last." placeholder:"FILE"`
}

// ask prints a text of pending.
func (c *ownerSigned) ask(p *program, file string, text func(old string) (string, error)) error {
	now, err := pending(file, text)
	if err != nil {
		return err
	}
	fmt.Fprintln(p.err, "The Space's owner signs this text with personal_sign, without the line break at its end:")
	fmt.Fprintln(p.out, now)
	fmt.Fprintln(p.err, "Then run the same command with --signature 0x…")
	return nil
}

// pending keeps a text in a file until it is signed; text gets the one that is there, "" if there is none.
func pending(file string, text func(old string) (string, error)) (string, error) {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	now, err := text(string(old))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	return now, os.WriteFile(file, []byte(now), 0o600)
}

// complete hands on what was signed, and forgets the text once that is done.
func (c *ownerSigned) complete(file string, post func(header string) error) error {
	signed := c.Message
	if signed == "" {
		signed = file
	}
	text, err := os.ReadFile(signed)
	if err != nil {
		return fmt.Errorf("text that was signed: %w", err)
	}
	header, err := capstore.SignedByOwner(strings.TrimSuffix(string(text), "\n"), c.Signature)
	if err != nil {
		return err
	}
	if err := post(header); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// pendingFile is where a text waits for its signature.
func pendingFile(datadir, verb, about string) string {
	return filepath.Join(datadir, "pending", verb+"-"+tinycloud.Sum([]byte(about)).String()[:32]+".siwe")
}
