package reference

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Blocks are the values of a node, by the hash its rows name. Versions before 1.16.0 could store a value under a hash
// that is not its own (docs/conformance.md, "Data of the reference"): who reads one compares.
type Blocks interface {
	// Open returns a value. The error is of class [tinycloud.ErrNotFound] when it is not there.
	Open(ctx context.Context, space Space, hash tinycloud.Hash) (io.ReadCloser, error)
	// Where names the place of a value, for messages.
	Where(space Space, hash tinycloud.Hash) string
}

// Dir is the directory storage.blocks.path of a node (docs/protocol.md, "Values").
type Dir string

// Where is a file's path.
func (d Dir) Where(space Space, hash tinycloud.Hash) string {
	suffix, name := split(space.Text)
	return filepath.Join(string(d), suffix, name, blockName(hash))
}

// Open opens a file.
func (d Dir) Open(_ context.Context, space Space, hash tinycloud.Hash) (io.ReadCloser, error) {
	suffix, name := split(space.Text)
	if !filepath.IsLocal(suffix) || !filepath.IsLocal(name) || strings.ContainsAny(suffix+name, "/\\") {
		return nil, fmt.Errorf("space %q has no directory: %w", space.Text, tinycloud.ErrNotFound)
	}
	f, err := os.Open(d.Where(space, hash))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("value %s: %w", hash, tinycloud.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("value %s: not a file: %w", hash, tinycloud.ErrNotFound), err, f.Close())
	}
	return f, nil
}

// split cuts a Space id into the suffix of its owner's DID and its name.
func split(space string) (suffix, name string) {
	text := strings.TrimPrefix(space, "tinycloud:")
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", text
	}
	return text[:i], text[i+1:]
}

func blockName(hash tinycloud.Hash) string { return base64.URLEncoding.EncodeToString(hash[:]) }
