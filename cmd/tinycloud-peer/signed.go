package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/client"
)

// ownerSigned is a verb in two steps: it prints a text for the owner's wallet, and completes it with the
// signature.
type ownerSigned struct {
	Signature string `help:"The owner's personal_sign of the text that was printed." placeholder:"0x…"`
	Message   string `help:"File with the text that was signed, if it is not the one printed last." placeholder:"FILE"`
	Key       string `help:"File with the owner's private key, 64 hex digits: it signs, in place of a wallet." placeholder:"FILE"`
}

// askUnlessSigned has the key in a file sign a text of pending, so that it can be completed. Without such a key it prints the
// text, unless it comes with its signature, and reports that this is all for now.
func (c *ownerSigned) askUnlessSigned(p *program, file string, text func(old string) (string, error)) (asked bool, err error) {
	switch {
	case c.Signature != "":
		return false, nil
	case c.Key == "":
		return true, c.ask(p, file, text)
	}
	w, err := walletIn(c.Key)
	if err != nil {
		return false, err
	}
	now, err := pending(file, text)
	if err != nil {
		return false, err
	}
	if account, _, _ := strings.Cut(now, "\n\n"); !strings.HasSuffix(account, "\n"+w.Address()) {
		return false, fmt.Errorf("%s is the key of %s, and another account has to sign", c.Key, w.Address())
	}
	c.Signature, c.Message = "0x"+hex.EncodeToString(w.PersonalSign(now)), ""
	return false, nil
}

// walletIn reads a private key.
func walletIn(file string) (*client.Wallet, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	w, err := client.ParseWallet(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return w, nil
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
