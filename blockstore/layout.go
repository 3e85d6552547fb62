package blockstore

import (
	"encoding/base64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// The layout is that of docs/protocol.md, "Values": <dir>/<DID suffix>/<Space name>/<padded base64url of the digest>.
// A DID suffix begins with a letter or digit and contains a colon, so names that begin with a dot are ours.
const (
	stagingDir  = ".staging"
	stagePrefix = "stage-" // a body being written
	partSuffix  = ".part"  // a value being assembled
	mapSuffix   = ".map"   // which of its chunks are there
)

// spaceDir returns the directory of a Space: its DID's directory and its own. A SpaceID exists only
// parsed, so both are single path elements; IsLocal is the belt to those braces.
func (f *files) spaceDir(space tinycloud.SpaceID) (owner, dir string, ok bool) {
	suffix, name := strings.TrimPrefix(string(space.Owner()), "did:"), space.Name()
	if space.IsZero() || strings.ContainsAny(suffix+name, "/\\\x00") || !filepath.IsLocal(suffix) || !filepath.IsLocal(name) ||
		suffix[0] == '.' || name == "." {
		return "", "", false
	}
	owner = filepath.Join(f.dir, suffix)
	return owner, filepath.Join(owner, name), true
}

func fileName(hash tinycloud.Hash) string { return base64.URLEncoding.EncodeToString(hash[:]) }

func parseFileName(name string) (tinycloud.Hash, bool) {
	b, err := base64.URLEncoding.Strict().DecodeString(name)
	if err != nil || len(b) != len(tinycloud.Hash{}) {
		return tinycloud.Hash{}, false
	}
	return tinycloud.Hash(b), true
}

func (s *Store) staging(name string) string { return filepath.Join(s.o.Dir, stagingDir, name) }

// makeAll makes a directory and its parents and makes the new names durable.
func makeAll(fsys FS, dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeAll(fsys, parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return fsys.SyncDir(parent)
}

// makeDirs makes a Space's directory and makes it durable before any file in it. Directories that a
// crashed process made may not be, so the first time in a process everything is fsynced.
func (f *files) makeDirs(owner, dir string) error {
	if f.durable.Contains(dir) {
		return nil
	}
	for _, d := range []string{owner, dir} {
		if err := os.Mkdir(d, 0o700); err != nil && !os.IsExist(err) {
			return err
		}
		if err := f.fs.SyncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	f.durable.Add(dir, struct{}{})
	return nil
}

// eachEntry calls fn for the entries of a directory, a batch in memory at a time. fs.SkipAll from fn ends
// it, also from within a nested one.
func eachEntry(dir string, fn func(fs.DirEntry) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(dirBatch)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
}
