package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/reference"
)

// Odd things about databases.
const (
	FoundNoSQLite = "database that SQLite does not open, left out"
	FoundCell     = "part of a database that no database here can have: it is in the file, and left out when that is loaded"
)

// Database is a SQL database of the reference, as a file. It is not part of the Space yet: only who may write to the Space
// may make it so, and the reference's history has nothing of its writes.
type Database struct {
	Name   string
	Paths  []string // by which it was used
	File   string
	Tables int
	Rows   int64
	Bytes  int64
}

// databases saves the SQL databases of a Space as files.
func (o *TakeOver) databases(ctx context.Context, s reference.Space, out *Outcome) error {
	if o.Files == "" {
		return nil
	}
	return o.From.Databases(ctx, s, o.odd, func(a reference.Artifact) error {
		d, err := o.save(ctx, s, a)
		if errors.Is(err, engine.ErrNotSQLite) {
			o.Odd.Add(FoundNoSQLite, fmt.Sprintf("%s %q: %v", s.Text, a.Name, err))
			return nil
		}
		if err == nil {
			out.Databases = append(out.Databases, d)
		}
		return err
	})
}

// save writes a database to a file, and looks through it as a load does. Its name is any text.
func (o *TakeOver) save(ctx context.Context, s reference.Space, a reference.Artifact) (d Database, err error) {
	d = Database{Name: a.Name, Paths: a.Paths, File: filepath.Join(o.Files, fileName(s.Text), fileName(a.Name)+".db")}
	if err := os.MkdirAll(filepath.Dir(d.File), 0o700); err != nil {
		return d, err
	}
	coming := d.File + ".tmp"
	// A log that is beside a file is taken for that file's, whatever it is of.
	for _, x := range []string{coming, coming + "-wal", coming + "-shm", d.File + "-wal", d.File + "-shm"} {
		if err := os.Remove(x); err != nil && !errors.Is(err, os.ErrNotExist) {
			return d, err
		}
	}
	err = os.WriteFile(coming, a.Payload, 0o600)
	if err == nil && a.Delta != nil {
		err = os.WriteFile(coming+"-wal", a.Delta, 0o600)
	}
	if err != nil {
		return d, err
	}
	found, err := engine.Dump(ctx, coming, func(engine.Chunk) error { return nil }) // SQLite takes the log into the file
	if err != nil {
		return d, errors.Join(err, os.Remove(coming))
	}
	for _, x := range found.Odd {
		o.Odd.Add(FoundCell, fmt.Sprintf("%s %q: %s", s.Text, a.Name, x))
	}
	info, err := os.Stat(coming)
	if err != nil {
		return d, err
	}
	d.Tables, d.Rows, d.Bytes = found.Tables, found.Rows, info.Size()
	return d, os.Rename(coming, d.File)
}

// fileName is a name of a file for any text.
func fileName(text string) string {
	name := url.PathEscape(text)
	if len(name) > 200 || name == "" || name[0] == '.' {
		return tinycloud.Sum([]byte(text)).String()
	}
	return name
}
