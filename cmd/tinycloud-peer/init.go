package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

type initCmd struct {
	Dir string `arg:"" optional:"" default:"." help:"Directory to write to; made if missing."`
}

// initial is the configuration of a new node; everything else has its default.
const initial = `# Configuration of tinycloud-peer. Relative paths are relative to the working directory of the node.

[global]
    # address = "127.0.0.1"
    # port = 8000

[global.storage]
    # Root of all local data: secret, database, values.
    datadir = "./data"

[global.p2p]
    # listen = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"]
    # Addresses to tell other hosts instead of those found out, without /p2p/….
    # announce = []

[global.prometheus]
    # port = 8001
`

// Run writes tinycloud.toml and data/secret and replaces neither.
func (c *initCmd) Run(p *program) error {
	file := filepath.Join(c.Dir, "tinycloud.toml")
	secretFile := filepath.Join(c.Dir, "data", "secret")
	for _, name := range []string{file, secretFile} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already", name)
		}
	}
	secret, _, err := config.LoadOrCreateSecret(secretFile)
	if err != nil {
		return err
	}
	keys, err := hostkeys.New(secret.Bytes())
	if err != nil {
		return err
	}
	if err := writeNew(file, initial); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "wrote %s\nwrote %s: back it up, without it this node is no host of its Spaces any more\nnode  %s\n",
		file, secretFile, hostkeys.DIDKey(keys.NodeKey().Public().(ed25519.PublicKey)))
	return nil
}

// writeNew writes a file that is not there yet.
func writeNew(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}
