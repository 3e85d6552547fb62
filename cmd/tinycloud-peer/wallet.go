package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

type walletCmd struct {
	File string `arg:"" help:"File with the private key, 64 hex digits; made if missing."`
	Name string `default:"default" help:"Name of the Space that is printed."`
	answer
}

// Help warns.
func (*walletCmd) Help() string {
	return "For trying things out, and for machines that own Spaces: whoever has the file owns them. People keep their keys in a wallet, and sign there."
}

// Run prints whose key a file holds, a new one if there is none.
func (c *walletCmd) Run(p *program) error {
	if _, err := os.Lstat(c.File); errors.Is(err, fs.ErrNotExist) {
		if err := writeKey(c.File); err != nil {
			return err
		}
	}
	w, err := walletIn(c.File)
	if err != nil {
		return err
	}
	space, err := w.Space(c.Name)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, map[string]string{"address": w.Address(), "did": string(w.DID()), "space": space.String()})
	}
	fmt.Fprintf(p.err, "The account %s owns this Space:\n", w.Address())
	_, err = fmt.Fprintln(p.out, space)
	return err
}

// writeKey makes a key, in a file for the user of this process alone.
func writeKey(file string) error {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, hex.EncodeToString(key[:]))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		err = errors.Join(err, os.Remove(file)) // half a key would be in the way of the next one
	}
	return err
}
