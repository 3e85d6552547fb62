package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/client"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
)

type loadCmd struct {
	Space    tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Database string            `arg:"" help:"Name of the database; it has to be new."`
	File     string            `arg:"" help:"SQLite file, with its write-ahead log beside it if there is one."`
	Resume   bool              `help:"Go on after a load that was stopped: what is there stays as it is."`
}

// Help tells what is taken.
func (*loadCmd) Help() string {
	return "Writes the tables, rows with their rowids, indexes and views of a SQLite file into a database of a Space, as an app does, by the session of " +
		"\"login\": so all hosts of the Space come to the same rows. What no database of a Space can have is left out and named: cells of more than " +
		"1 MiB, rows that don't fit in a request, triggers, virtual tables."
}

// Run loads a file.
func (c *loadCmd) Run(ctx context.Context, p *program) error {
	s, err := p.app(c.Space)
	if err != nil {
		return err
	}
	path, end, err := copyOfSQLite(c.File)
	if err != nil {
		return err
	}
	defer end()
	l := &loading{to: s, database: c.Database, has: map[string]bool{}}
	if err := l.look(ctx); err != nil {
		return err
	}
	if len(l.has) > 0 && !c.Resume {
		return fmt.Errorf("%q has tables already; --resume goes on where a load was stopped", c.Database)
	}
	bar := progress.New(p.err, "load", "rows", 0)
	l.done = func(rows int64) { bar.Add(rows, 0) }
	out, err := engine.Dump(ctx, path, func(c engine.Chunk) error { return l.add(ctx, c) })
	bar.Done()
	for _, x := range out.Odd {
		fmt.Fprintln(p.out, "left out:", x)
	}
	if n := out.More - int64(len(out.Odd)); n > 0 {
		fmt.Fprintf(p.out, "and %d more\n", n)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "%d tables, %d rows\n", out.Tables, out.Rows)
	if out.More > 0 {
		return fmt.Errorf("%d things could not be taken over as they were", out.More)
	}
	return nil
}

// copyOfSQLite copies a file, with its log, to where SQLite may write to it.
func copyOfSQLite(from string) (path string, end func(), err error) {
	dir, err := os.MkdirTemp("", "tinycloud-load-")
	if err != nil {
		return "", nil, err
	}
	end = func() { _ = os.RemoveAll(dir) }
	path = filepath.Join(dir, "file.db")
	if err = copyOf(from, path); err == nil {
		if err = copyOf(from+"-wal", path+"-wal"); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		end()
		return "", nil, err
	}
	return path, end, nil
}

func copyOf(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// loading carries out what makes a file's content.
type loading struct {
	to       *client.Space
	database string
	has      map[string]bool // what the schema had before, by its text
	done     func(rows int64)
}

// look reads what the database has.
func (l *loading) look(ctx context.Context) error {
	rows, err := l.to.Query(ctx, l.database, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
	if err != nil {
		return err
	}
	for _, r := range rows.Rows {
		var text string
		if err := json.Unmarshal(r[0], &text); err != nil {
			return err
		}
		l.has[text] = true
	}
	return nil
}

func (l *loading) add(ctx context.Context, c engine.Chunk) error {
	var all []client.Statement
	for _, q := range c.Statements {
		if c.Schema && l.has[q.SQL] {
			continue
		}
		sql := q.SQL
		if len(l.has) > 0 && !c.Schema {
			sql = strings.Replace(sql, "INSERT INTO", "INSERT OR IGNORE INTO", 1)
		}
		x := client.Statement{SQL: sql}
		for _, v := range q.Params {
			if f, ok := v.(float64); ok {
				v = client.Real(f)
			}
			x.Params = append(x.Params, v)
		}
		all = append(all, x)
	}
	if len(all) > 0 {
		if err := l.to.Batch(ctx, l.database, all); err != nil {
			return err
		}
	}
	l.done(c.Rows)
	return nil
}
