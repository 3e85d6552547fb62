package reference

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // database driver "pgx"
	_ "modernc.org/sqlite"             // database driver "sqlite"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

// ErrEncrypted means that the database's tokens are encrypted and the secret was not given, or is another.
var ErrEncrypted = errors.New("the database is encrypted with the secret of its node")

// Oddity is something in the data that is not as it should be.
type Oddity struct {
	Space string // "" when it is about none
	What  string // a fixed text that groups oddities
	Which string // what it is about: an id, a key, a file
}

// DB is the database of a reference node. Its methods may be called concurrently.
type DB struct {
	sql      *sql.DB
	postgres bool
	current  bool // there is a table current_kv: 1.16.0
	networks bool // there is a table encryption_network

	artifacts bool // there is a table database_artifact
	abilities bool // there is a table invoked_abilities
	aead      cipher.AEAD
}

// Open opens a database read-only. key is the node's column key, hostkeys.ContextWebhookSecrets of its secret;
// nil when the secret is not known. The error is [ErrEncrypted] when the tokens cannot be read with it.
func Open(ctx context.Context, where config.Database, key *[32]byte) (*DB, error) {
	d := &DB{postgres: where.Scheme() == config.Postgres}
	if key != nil {
		block, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, err
		}
		if d.aead, err = cipher.NewGCM(block); err != nil {
			return nil, err
		}
	}
	err := d.connect(ctx, where)
	if err == nil {
		err = d.recognise(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reference database %s: %w", where, err), d.Close())
	}
	return d, nil
}

func (d *DB) connect(ctx context.Context, where config.Database) (err error) {
	switch {
	case d.postgres:
		if d.sql, err = sql.Open("pgx", where.DSN()); err == nil {
			err = d.sql.PingContext(ctx)
		}
		return err
	case where.Path() == "" || where.Scheme() != config.SQLite:
		return fmt.Errorf("neither a SQLite file nor a PostgreSQL server: %w", tinycloud.ErrUnsupported)
	}
	file := "file:" + (&url.URL{Path: where.Path()}).EscapedPath()
	// A directory that cannot be written to takes no files of shared memory; then nobody writes to the
	// database either.
	for _, mode := range []string{"?mode=ro&_pragma=query_only(1)", "?immutable=1"} {
		var one int
		if d.sql, err = sql.Open("sqlite", file+mode); err != nil {
			return err
		}
		if err = d.sql.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&one); err == nil {
			return nil
		}
		err = errors.Join(err, d.sql.Close())
	}
	return err
}

// Close releases the database.
func (d *DB) Close() error {
	if d.sql == nil {
		return nil
	}
	return d.sql.Close()
}

// recognise makes sure that this is what it is taken for and that its tokens can be read.
func (d *DB) recognise(ctx context.Context) error {
	for _, table := range []string{"space", "epoch", "event_order", "epoch_order", "delegation", "invocation", "revocation", "kv_write", "kv_delete"} {
		if _, err := d.count(ctx, table); err != nil {
			return fmt.Errorf("not a database of the reference node: %w", err)
		}
	}
	_, err := d.count(ctx, "current_kv")
	d.current = err == nil
	_, err = d.count(ctx, "encryption_network")
	d.networks = err == nil
	_, err = d.count(ctx, "database_artifact")
	d.artifacts = err == nil
	_, err = d.count(ctx, "invoked_abilities")
	d.abilities = err == nil
	for _, table := range []string{"invocation", "delegation"} {
		rows, err := d.query(ctx, "SELECT serialization FROM "+table+" LIMIT 100")
		if err != nil {
			return err
		}
		for rows.Next() {
			var b []byte
			if rows.Scan(&b) != nil || len(b) == 0 || b[0] != sealed {
				continue
			}
			if _, err := d.open(b); err == nil {
				break // one that can be read is enough; a damaged one is told of later
			}
			if d.aead == nil || !rows.Next() {
				return errors.Join(ErrEncrypted, rows.Close())
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (d *DB) count(ctx context.Context, table string) (n int64, err error) {
	err = d.sql.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&n)
	return n, err
}

// query runs a query with ? for its arguments.
func (d *DB) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return d.sql.QueryContext(ctx, d.bind(query), args...)
}

func (d *DB) row(ctx context.Context, query string, args ...any) *sql.Row {
	return d.sql.QueryRowContext(ctx, d.bind(query), args...)
}

func (d *DB) bind(query string) string {
	if !d.postgres {
		return query
	}
	var b strings.Builder
	for i, part := range strings.Split(query, "?") {
		if i > 0 {
			b.WriteString("$" + strconv.Itoa(i))
		}
		b.WriteString(part)
	}
	return b.String()
}

const sealed = 1 // first byte of an encrypted column

// open decrypts a column: 01 ‖ nonce ‖ AES-256-GCM. One that begins otherwise is plain (docs/conformance.md, "Data of
// the reference").
func (d *DB) open(b []byte) ([]byte, error) {
	if len(b) == 0 || b[0] != sealed {
		return b, nil
	}
	if d.aead == nil {
		return nil, ErrEncrypted
	}
	n := d.aead.NonceSize()
	if len(b) < 1+n {
		return nil, errors.New("shorter than its nonce")
	}
	return d.aead.Open(nil, b[1:1+n], b[1+n:], nil)
}

// digest reads a hash column: 34 bytes that begin with the multihash's 1e20.
func digest(b []byte) (tinycloud.Hash, bool) {
	if len(b) != 34 || b[0] != 0x1e || b[1] != 0x20 {
		return tinycloud.Hash{}, false
	}
	return tinycloud.Hash(b[2:]), true
}

func column(h tinycloud.Hash) []byte { return append([]byte{0x1e, 0x20}, h[:]...) }

// millis reads a time column, 0 for none.
func millis(v any) int64 {
	switch v := v.(type) {
	case time.Time:
		return v.UnixMilli()
	case []byte:
		return millis(string(v))
	case string:
		if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return t.UnixMilli()
		}
	}
	return 0
}

func metadata(b []byte) (map[string]string, bool) {
	m := map[string]string{}
	err := json.Unmarshal(b, &m)
	return m, err == nil && m != nil
}

// Space is a Space as the database names it; several spellings may be one.
type Space struct {
	ID     tinycloud.SpaceID
	Text   string
	Epochs int64
}

// Spaces returns the Spaces of the node.
func (d *DB) Spaces(ctx context.Context, odd func(Oddity)) ([]Space, error) {
	rows, err := d.query(ctx, "SELECT s.id, (SELECT count(*) FROM epoch e WHERE e.space = s.id) FROM space s ORDER BY s.id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Space
	for rows.Next() {
		var s Space
		if err := rows.Scan(&s.Text, &s.Epochs); err != nil {
			return nil, err
		}
		if s.ID, err = tinycloud.ParseSpaceID(s.Text); err != nil {
			odd(Oddity{s.Text, "space whose id is none", s.Text})
			continue
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// Tokens calls yield with the bytes of every delegation, then of every revocation.
func (d *DB) Tokens(ctx context.Context, odd func(Oddity), yield func(id tinycloud.Hash, b []byte) error) error {
	for _, table := range []string{"delegation", "revocation"} {
		rows, err := d.query(ctx, "SELECT id, serialization FROM "+table)
		if err != nil {
			return err
		}
		for rows.Next() {
			var id, b []byte
			if err := rows.Scan(&id, &b); err != nil {
				return errors.Join(err, rows.Close())
			}
			h, ok := digest(id)
			plain, err := d.open(b)
			if !ok || err != nil || tinycloud.Sum(plain) != h {
				odd(Oddity{"", table + " whose bytes do not match its id", fmt.Sprintf("%x", id)})
				continue
			}
			if err := yield(h, plain); err != nil {
				return errors.Join(err, rows.Close())
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
	}
	return nil
}
