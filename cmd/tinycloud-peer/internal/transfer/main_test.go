package transfer_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"),
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// settings are those of a node with a data directory of its own; "" for a secret of its own.
func settings(t testing.TB, secret string) config.Config {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "tinycloud.toml")
	text := "[global.storage]\ndatadir = " + strconv.Quote(filepath.Join(dir, "data")) + "\n"
	if secret != "" {
		text += "[global.keys]\ntype = \"Static\"\nsecret = " + strconv.Quote(secret) + "\n"
	}
	must(t, os.WriteFile(file, []byte(text), 0o600))
	cfg, _, err := config.Load(config.LoadOptions{File: file})
	must(t, err)
	return cfg
}

func openData(t testing.TB, cfg config.Config) *node.Data {
	t.Helper()
	d, err := node.OpenData(context.Background(), cfg, nil)
	must(t, err)
	return d
}

// with runs a function on a node's stores.
func with(t testing.TB, cfg config.Config, f func(*node.Data)) {
	t.Helper()
	d := openData(t, cfg)
	defer func() { must(t, d.Close()) }()
	f(d)
}

// untar unpacks recorded data and returns its directory.
func untar(t testing.TB, version string) string {
	t.Helper()
	f, err := os.Open("testdata/reference-" + version + "-data.tar.gz")
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	dir := t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return filepath.Join(dir, "data")
		}
		must(t, err)
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.FileInfo().IsDir() {
			must(t, os.MkdirAll(name, 0o700))
			continue
		}
		b, err := io.ReadAll(r)
		must(t, err)
		must(t, os.WriteFile(name, b, 0o600))
	}
}

// served is what the recorded node answered to the last read of a key.
type served struct {
	Space, Key, Body, Type string
	Status                 int
}

func readServed(t testing.TB, version string) (out []served) {
	t.Helper()
	b, err := os.ReadFile("testdata/served-" + version + ".json")
	must(t, err)
	must(t, json.Unmarshal(b, &out))
	if len(out) < 10 {
		t.Fatalf("only %d reads", len(out))
	}
	return out
}

const recordedSecret = "U29tZSBsb25nIHBpZWNlIG9mIGVudHJvcHkgd2hpY2ggaXMgYSBzZWNyZXQgYW5kIG1vcmUgdGhhbiAzMiBieXRlcw"

func columnKey(t testing.TB) *[32]byte {
	t.Helper()
	secret, err := config.ParseSecret(recordedSecret)
	must(t, err)
	keys, err := hostkeys.New(secret.Bytes())
	must(t, err)
	key := keys.Derive(hostkeys.ContextWebhookSecrets)
	return &key
}

// old is a made up reference node of version 1.0.0.
type old struct {
	t       testing.TB
	db      *sql.DB
	dollar  bool
	blocks  string
	wallet  *captest.Wallet
	session *captest.SessionKey
	space   tinycloud.SpaceID
	proof   tinycloud.Hash
	seq     map[tinycloud.Hash]int
	heads   []tinycloud.Hash
	at      time.Time
	n       int
}

const oldSchema = `CREATE TABLE seaql_migrations (version varchar(99) PRIMARY KEY, applied_at bigint);
CREATE TABLE space (id varchar(999) PRIMARY KEY);
CREATE TABLE epoch (seq bigint NOT NULL, id BYTES NOT NULL, space varchar(999) NOT NULL, PRIMARY KEY (id, space));
CREATE TABLE delegation (id BYTES PRIMARY KEY, issued_at TIME, serialization BYTES NOT NULL);
CREATE TABLE invocation (id BYTES PRIMARY KEY, issued_at TIME, serialization BYTES NOT NULL);
CREATE TABLE revocation (id BYTES PRIMARY KEY, serialization BYTES NOT NULL);
CREATE TABLE event_order (seq bigint NOT NULL, epoch BYTES NOT NULL, epoch_seq bigint NOT NULL, event BYTES NOT NULL, space varchar(999) NOT NULL, PRIMARY KEY (epoch, epoch_seq, space));
CREATE TABLE epoch_order (parent BYTES NOT NULL, child BYTES NOT NULL, space varchar(999) NOT NULL, PRIMARY KEY (parent, child, space));
CREATE TABLE kv_write (space varchar(999) NOT NULL, key varchar(999) NOT NULL, invocation BYTES NOT NULL, seq bigint NOT NULL, epoch BYTES NOT NULL, epoch_seq bigint NOT NULL, value BYTES NOT NULL, metadata JSON NOT NULL, PRIMARY KEY (space, key, invocation));
CREATE TABLE kv_delete (invocation_id BYTES NOT NULL, space varchar(999) NOT NULL, key varchar(999) NOT NULL, deleted_invocation_id BYTES NOT NULL, PRIMARY KEY (invocation_id, space));`

func newOld(t testing.TB, db *sql.DB, postgres bool) *old {
	t.Helper()
	o := &old{
		t: t, db: db, dollar: postgres, blocks: t.TempDir(), wallet: captest.NewWallet("old"), session: captest.NewSession("old"),
		seq: map[tinycloud.Hash]int{}, at: time.Date(2025, 3, 1, 12, 0, 0, 123456000, time.UTC),
	}
	o.space = o.wallet.Space("default")
	types := strings.NewReplacer("BYTES", "blob", "TIME", "timestamp_with_timezone_text", "JSON", "json_text")
	if postgres {
		types = strings.NewReplacer("BYTES", "bytea", "TIME", "timestamptz", "JSON", "json")
	}
	for _, s := range strings.Split(types.Replace(oldSchema), ";\n") {
		o.exec(s)
	}
	o.exec("INSERT INTO space VALUES (?)", o.space.String())
	return o
}

func (o *old) exec(query string, args ...any) {
	o.t.Helper()
	if o.dollar {
		for i := 1; strings.Contains(query, "?"); i++ {
			query = strings.Replace(query, "?", "$"+strconv.Itoa(i), 1)
		}
	}
	if _, err := o.db.ExecContext(context.Background(), query, args...); err != nil {
		o.t.Fatalf("%s: %v", query, err)
	}
}

func id34(h tinycloud.Hash) []byte { return append([]byte{0x1e, 0x20}, h[:]...) }

func (o *old) when() any {
	if o.dollar {
		return o.at
	}
	return o.at.Format(time.RFC3339Nano)
}

// commit adds an epoch with one event after the given parents.
func (o *old) commit(parents []tinycloud.Hash, event []byte, ops ...kv.Op) tinycloud.Hash {
	o.t.Helper()
	o.at = o.at.Add(time.Second)
	ev := capstore.EpochEvent{Event: tinycloud.Sum(event)}
	for _, op := range ops {
		ev.Ops = append(ev.Ops, kv.EncodeOp(op))
	}
	id, seq := tinycloud.Sum(capstore.EncodeEpoch(parents, []capstore.EpochEvent{ev})), 0
	for _, p := range parents {
		seq = max(seq, o.seq[p]+1)
		o.exec("INSERT INTO epoch_order VALUES (?,?,?)", id34(p), id34(id), o.space.String())
		o.heads = slices.DeleteFunc(o.heads, func(h tinycloud.Hash) bool { return h == p })
	}
	o.seq[id], o.heads = seq, append(o.heads, id)
	o.exec("INSERT INTO epoch VALUES (?,?,?)", seq, id34(id), o.space.String())
	o.exec("INSERT INTO event_order VALUES (?,?,0,?,?)", seq, id34(id), id34(ev.Event), o.space.String())
	for _, op := range ops {
		o.row(op, seq, id, ev.Event)
	}
	return id
}

func (o *old) row(op kv.Op, seq int, epoch, event tinycloud.Hash) {
	o.t.Helper()
	if op.Delete {
		var last []byte
		query := "SELECT invocation FROM kv_write WHERE key = '" + op.Key + "' ORDER BY seq DESC, epoch DESC LIMIT 1"
		must(o.t, o.db.QueryRowContext(context.Background(), query).Scan(&last))
		o.exec("INSERT INTO kv_delete VALUES (?,?,?,?)", id34(event), o.space.String(), op.Key, last)
		return
	}
	meta, err := json.Marshal(op.Metadata)
	must(o.t, err)
	o.exec("INSERT INTO kv_write VALUES (?,?,?,?,?,0,?,?)", o.space.String(), op.Key, id34(event), seq, id34(epoch), id34(op.Value), string(meta))
}

func (o *old) delegation(header string) []byte {
	o.t.Helper()
	b, err := base64.URLEncoding.DecodeString(header)
	must(o.t, err)
	o.exec("INSERT INTO delegation VALUES (?,?,?)", id34(tinycloud.Sum(b)), o.when(), b)
	return b
}

// host begins the Space, as the SDK does: delegated to a host, then a session.
func (o *old) host(did string) {
	o.t.Helper()
	o.commit(nil, o.delegation(o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: did, IssuedAt: o.at, Nonce: "nonce0000001", Caps: captest.Caps{o.space.String() + "/space": {"tinycloud.space/host"}},
	})))
	grant := o.delegation(o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), IssuedAt: o.at, Expires: o.at.Add(24 * time.Hour), Nonce: "nonce0000002",
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/del", "tinycloud.kv/get"}},
	}))
	o.proof = tinycloud.Sum(grant)
	o.commit(o.heads, grant)
}

func (o *old) invocation(key, ability string) []byte {
	o.t.Helper()
	o.n++
	b := []byte(o.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/kv/" + key: {ability}}, Proofs: []tinycloud.Hash{o.proof},
		Expires: o.at.Add(time.Minute), Nonce: fmt.Sprint("nonce ", o.n),
	}))
	o.exec("INSERT INTO invocation VALUES (?,?,?)", id34(tinycloud.Sum(b)), o.when(), b)
	return b
}

func (o *old) put(parents []tinycloud.Hash, key, value string) tinycloud.Hash {
	o.t.Helper()
	h := tinycloud.Sum([]byte(value))
	dir := filepath.Join(o.blocks, strings.TrimPrefix(string(o.space.Owner()), "did:"), o.space.Name())
	must(o.t, os.MkdirAll(dir, 0o700))
	must(o.t, os.WriteFile(filepath.Join(dir, base64.URLEncoding.EncodeToString(h[:])), []byte(value), 0o600))
	return o.commit(parents, o.invocation(key, "tinycloud.kv/put"), kv.Op{
		Key: key, Value: h, Metadata: map[string]string{"content-type": "text/plain", "cookie": "secret", "host": "old"},
	})
}

func (o *old) del(parents []tinycloud.Hash, key string) tinycloud.Hash {
	o.t.Helper()
	return o.commit(parents, o.invocation(key, "tinycloud.kv/del"), kv.Op{Key: key, Delete: true})
}

// fill writes a history with races, deletes, a replay, reads and a value of more than a block.
func (o *old) fill() {
	o.t.Helper()
	for i := range 8 {
		o.put(slices.Clone(o.heads), fmt.Sprint("k/", i%5), fmt.Sprint("value ", i))
	}
	fork := slices.Clone(o.heads)
	a := o.put(fork, "race", "one")
	b := o.put(fork, "race", "other")
	c := o.put(fork, "k/0", "third")
	o.del([]tinycloud.Hash{c, a, b}, "k/1") // not in the order of their bytes
	o.commit(slices.Clone(o.heads), o.invocation("k/2", "tinycloud.kv/get"))
	again := o.invocation("twice", "tinycloud.kv/put")
	h := tinycloud.Sum([]byte("third")) // equal bytes under two keys
	o.commit(slices.Clone(o.heads), again, kv.Op{Key: "twice", Value: h, Metadata: map[string]string{}})
	op := kv.EncodeOp(kv.Op{Key: "twice", Value: h, Metadata: map[string]string{}})
	o.replay(again, op)
	o.put(slices.Clone(o.heads), "large", strings.Repeat("0123456789abcdef", 200_000))
	o.put(slices.Clone(o.heads), "medium", strings.Repeat("x", 100_000))
}

// replay adds an epoch of an invocation that was carried out before: only the first wrote a row.
func (o *old) replay(event, op []byte) {
	o.t.Helper()
	parents := slices.Clone(o.heads)
	id := tinycloud.Sum(capstore.EncodeEpoch(parents, []capstore.EpochEvent{{Event: tinycloud.Sum(event), Ops: [][]byte{op}}}))
	seq := o.seq[parents[0]] + 1
	o.seq[id], o.heads = seq, []tinycloud.Hash{id}
	o.exec("INSERT INTO epoch VALUES (?,?,?)", seq, id34(id), o.space.String())
	o.exec("INSERT INTO epoch_order VALUES (?,?,?)", id34(parents[0]), id34(id), o.space.String())
	o.exec("INSERT INTO event_order VALUES (?,?,0,?,?)", seq, id34(id), id34(tinycloud.Sum(event)), o.space.String())
}

// newFileOld makes one in a SQLite file.
func newFileOld(t testing.TB) (*old, config.Database) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "caps.db")
	db, err := sql.Open("sqlite", path)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	where, err := config.ParseDatabase("sqlite:" + path)
	must(t, err)
	return newOld(t, db, false), where
}

func publicKey(d *node.Data, space tinycloud.SpaceID) ed25519.PublicKey {
	return d.Keys.SpaceKey(space).Public().(ed25519.PublicKey)
}

func repeat(s string, n int) string { return strings.Repeat(s, n) }

// largeFile is where a value of the block store is.
func largeFile(cfg config.Config, space tinycloud.SpaceID, hash tinycloud.Hash) string {
	return filepath.Join(cfg.Storage.Blocks.Path, strings.TrimPrefix(string(space.Owner()), "did:"), space.Name(), base64.URLEncoding.EncodeToString(hash[:]))
}
