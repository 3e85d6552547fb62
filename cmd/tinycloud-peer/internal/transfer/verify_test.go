package transfer_test

import (
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

func verify(t testing.TB, cfg config.Config) (out []capstore.Damage) {
	t.Helper()
	with(t, cfg, func(d *node.Data) {
		must(t, transfer.Verify(t.Context(), d, io.Discard, func(x capstore.Damage) { out = append(out, x) }))
	})
	return out
}

// filled is a node with a taken over history, later writes and large values.
func filled(t testing.TB) (config.Config, *old) {
	t.Helper()
	o, where := newFileOld(t)
	cfg := settings(t, "")
	with(t, cfg, func(d *node.Data) {
		o.host(hostkeys.DIDKey(publicKey(d, o.space)))
		o.fill()
		takeOver(t, d, where, nil, o.blocks)
	})
	return cfg, o
}

func damage(t testing.TB, cfg config.Config, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", cfg.Storage.Database.Path())
	must(t, err)
	res, err := db.ExecContext(t.Context(), query)
	must(t, err)
	if n, err := res.RowsAffected(); n == 0 || err != nil {
		t.Fatalf("%s: %d rows, %v", query, n, err)
	}
	must(t, db.Close())
}

// TestVerifyFindsDamage damages a row or file of each kind.
func TestVerifyFindsDamage(t *testing.T) {
	flip := func(column string) string { // the last byte
		return fmt.Sprintf("substr(%s, 1, length(%s) - 1) || CASE WHEN substr(%s, length(%s)) = x'00' THEN x'01' ELSE x'00' END", column, column, column, column)
	}
	set := func(table, column, where string) string {
		return fmt.Sprintf("UPDATE %s SET %s = CAST(%s AS BLOB) WHERE %s", table, column, flip(column), where)
	}
	const last = "rowid = (SELECT max(eid) FROM epochs)"
	for _, tt := range []struct{ name, query, what string }{
		{"epoch bytes", set("epochs", "bytes", last), "epoch whose bytes are others"},
		{"epoch id", set("epochs", "id", last), "epoch whose bytes are others"},
		{"epoch id cut", "UPDATE epochs SET id = x'00' WHERE " + last, "column of a wrong length"},
		{"epoch seq", "UPDATE epochs SET seq = seq + 1 WHERE " + last, "epoch whose place in the history is another"},
		{"epoch clock", "UPDATE epochs SET clock = x'ff' WHERE " + last, "epoch whose place in the history is another"},
		{"epoch verdict", "UPDATE epochs SET valid = 0 WHERE " + last, "epoch that is judged otherwise"},
		{"epoch time", "UPDATE epochs SET t = t + 1 WHERE " + last, "epoch that is judged otherwise"},
		{"epoch lost", "DELETE FROM epochs WHERE seq = 3", "epoch that is lost"},
		{"event bytes", set("events", "bytes", "eid = 7"), "event whose bytes or place are others"},
		{"event id", set("events", "id", "eid = 7"), "event whose bytes or place are others"},
		{"event verdict", "UPDATE events SET valid = 0 WHERE eid = 7", "event that is judged otherwise"},
		{"event lost", "DELETE FROM events WHERE eid = 7", "epoch that is not whole"},
		{"operation", set("ops", "bytes", "eid = 7"), "operation whose bytes or place are others"},
		{"operation key", "UPDATE ops SET key = 'x' WHERE eid = 7", "operation whose bytes or place are others"},
		{"operation verdict", "UPDATE ops SET valid = 0 WHERE eid = 7", "operation that is judged otherwise"},
		{"operation lost", "DELETE FROM ops WHERE eid = 7", "epoch that is not whole"},
		{"entry signature", set("entries", "sig", "branch = 0 AND n = 0"), "log entry whose bytes or signature are others"},
		{"entry time", "UPDATE entries SET at = at + 1 WHERE branch = 0 AND n = 0", "log entry whose bytes or signature are others"},
		{"entry digest", set("entries", "digest", "branch = 0 AND n = 0"), "log entry whose bytes or signature are others"},
		{"imported list", set("imports", "list", "1"), "log entry whose bytes or signature are others"},
		{"log tip", "UPDATE logs SET n = n + 1", "log that does not end where its entries do"},
		{"entry lost", "DELETE FROM entries WHERE branch = 0 AND n = 0", "log that does not end where its entries do"},
		{"key", "UPDATE kv SET value = zeroblob(32) WHERE key = 'k/3'", "current value that is lost"},
		{"key metadata", "UPDATE kv SET meta = '{}' WHERE key = 'k/3'", "key that holds something else"},
		{"key deleted", "UPDATE kv SET live = 0 WHERE key = 'k/3'", "key that holds something else"},
		{"key lost", "DELETE FROM kv WHERE key = 'k/3'", "rows that are lost"},
		{"heads", "UPDATE spaces SET heads = x''", "heads that are others"},
		{"value", "UPDATE vals SET inline = x'00' WHERE inline IS NOT NULL", "value whose bytes are others"},
		{"value lost", "DELETE FROM vals WHERE inline IS NOT NULL", "current value that is lost"},
		{"count of bytes", "UPDATE spaces SET bytes = bytes + 1", "count of bytes that is wrong"},
		{"value size", "UPDATE vals SET size = size + 1 WHERE inline IS NULL", "value whose file is lost or holds other bytes"},
		{"token", set("tokens", "bytes", "1"), "token whose bytes are others"},
		{"token kind", "UPDATE tokens SET kind = 3", "token that proves nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := filled(t)
			damage(t, cfg, tt.query)
			found := verify(t, cfg)
			for _, x := range found {
				if x.What == tt.what {
					return
				}
			}
			t.Errorf("found %+v", found)
		})
	}
}

func TestVerify(t *testing.T) {
	cfg, o := filled(t)
	if found := verify(t, cfg); len(found) > 0 {
		t.Fatalf("damage in what is whole: %+v", found)
	}
	hash := tinycloud.Sum([]byte(repeat("0123456789abcdef", 200_000)))
	path := largeFile(cfg, o.space, hash)
	for what, harm := range map[string]func() error{
		"short":  func() error { return os.Truncate(path, 5) },
		"absent": func() error { return os.Remove(path) },
	} {
		b, err := os.ReadFile(path)
		must(t, err)
		must(t, harm())
		if found := verify(t, cfg); len(found) != 1 || found[0].What != "value whose file is lost or holds other bytes" {
			t.Errorf("%s: %+v", what, found)
		}
		must(t, os.WriteFile(path, b, 0o600))
	}
	b, err := os.ReadFile(path)
	must(t, err)
	b[1_500_000] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
	if found := verify(t, cfg); len(found) != 1 {
		t.Errorf("a bit: %+v", found)
	}
	must(t, os.Remove(filepath.Join(filepath.Dir(path), filepath.Base(path))))
}
