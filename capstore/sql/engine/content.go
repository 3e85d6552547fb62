package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math"
	"strings"

	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
)

// Hash is the hash of the committed state: schema, and rows by their keys with their rowids. It is equal on two hosts iff
// the content is.
func (d *DB) Hash(ctx context.Context) (h tinycloud.Hash, err error) {
	err = d.read(ctx, func(c *lite.Conn) error {
		h, err = content(c, nil)
		return err
	})
	return h, err
}

// Hash is [DB.Hash] of the state when began is called: what is committed afterwards is not in it. It fails with [ErrMoved]
// where a rewind stops it.
func (v *View) Hash(ctx context.Context, began func()) (h tinycloud.Hash, err error) {
	err = v.read(ctx, func(c *lite.Conn) error {
		if began == nil {
			return ErrMoved
		}
		f := began
		began = nil
		h, err = content(c, f)
		return err
	})
	return h, err
}

// content hashes one snapshot. began, unless it is nil, is called once that stands.
func content(c *lite.Conn, began func()) (tinycloud.Hash, error) {
	if err := c.Run("BEGIN"); err != nil {
		return tinycloud.Hash{}, err
	}
	h := blake3.New()
	var err error
	if began != nil {
		_, err = c.Value("SELECT count(*) FROM sqlite_schema") // BEGIN alone reads nothing
		began()
	}
	err = errors.Join(err, hashContent(c, h))
	if err = errors.Join(err, c.Run("COMMIT")); err != nil {
		return tinycloud.Hash{}, err
	}
	return tinycloud.Hash(h.Sum(nil)), nil
}

func hashContent(c *lite.Conn, h hash.Hash) error {
	var tables []string
	row := func(s *lite.Stmt) error {
		for i := range s.Columns {
			putCell(h, s.Column(i))
		}
		return nil
	}
	for _, p := range []string{"user_version", "application_id"} {
		if err := c.Each("PRAGMA "+p, nil, row); err != nil {
			return err
		}
	}
	err := c.Each("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name", nil, func(s *lite.Stmt) error {
		if s.Column(0) == "table" {
			tables = append(tables, s.Column(1).(string))
		}
		return row(s)
	})
	if err != nil {
		return err
	}
	for _, t := range tables {
		putCell(h, t)
		sql, err := byKey(c, t)
		if err == nil {
			err = c.Each(sql, nil, row)
		}
		if err != nil {
			return fmt.Errorf("table %q: %w", t, err)
		}
	}
	c.Forget()
	return nil
}

// byKey is the statement that gives the rows of a table by their keys.
func byKey(c *lite.Conn, table string) (string, error) {
	without, err := c.Value("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", table)
	if err != nil {
		return "", err
	}
	if without != int64(1) {
		return fmt.Sprintf("SELECT rowid, * FROM main.%s NOT INDEXED ORDER BY rowid", quoted(table)), nil
	}
	var key []string
	err = c.Each("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", []any{table}, func(s *lite.Stmt) error {
		key = append(key, quoted(s.Column(0).(string)))
		return nil
	})
	return fmt.Sprintf("SELECT * FROM main.%s ORDER BY %s", quoted(table), strings.Join(key, ", ")), err
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func putCell(h hash.Hash, cell any) {
	var b []byte
	switch v := cell.(type) {
	case int64:
		b = binary.BigEndian.AppendUint64([]byte{1}, uint64(v))
	case float64:
		b = binary.BigEndian.AppendUint64([]byte{2}, math.Float64bits(v))
	case string:
		b = append(binary.BigEndian.AppendUint64([]byte{3}, uint64(len(v))), v...)
	case []byte:
		b = append(binary.BigEndian.AppendUint64([]byte{4}, uint64(len(v))), v...)
	default:
		b = []byte{0}
	}
	_, _ = h.Write(b)
}
