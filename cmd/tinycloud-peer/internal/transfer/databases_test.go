package transfer_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	databases "github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// sqlOwner is an owner with a session that may do all with the databases of a Space.
type sqlOwner struct {
	wallet  *captest.Wallet
	session *captest.SessionKey
	space   tinycloud.SpaceID
	proof   tinycloud.Hash
	n       int
}

// withDatabases runs a function on a node's stores, which have SQL.
func withDatabases(t *testing.T, cfg config.Config, f func(*node.Data, *databases.Service)) {
	t.Helper()
	s := databases.New(databases.Options{Dir: filepath.Join(cfg.Storage.Datadir, "sql")})
	d, err := node.OpenData(t.Context(), cfg, nil, s)
	must(t, err)
	defer func() { must(t, d.Close()) }()
	f(d, s)
}

func (o *sqlOwner) delegate(t *testing.T, d *node.Data, header string) tinycloud.Hash {
	t.Helper()
	tok, err := capstore.ParseDelegation(header)
	must(t, err)
	_, err = d.Store.Delegate(t.Context(), tok)
	must(t, err)
	return tok.ID
}

func (o *sqlOwner) run(t *testing.T, d *node.Data, s *databases.Service, path, statement string) {
	t.Helper()
	o.n++
	tok, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{o.space.String() + "/sql/" + path: {"tinycloud.sql/write"}},
		Proofs: []tinycloud.Hash{o.proof}, Expires: time.Now().Add(time.Minute), Nonce: fmt.Sprint(o.n),
	}))
	must(t, err)
	must(t, d.Store.Admit(t.Context(), tok))
	body, err := json.Marshal(map[string]string{"action": "execute", "sql": statement})
	must(t, err)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/invoke", bytes.NewReader(body))
	must(t, s.Invoke(httptest.NewRecorder(), r, service.Call{Store: d.Store, Token: tok, Space: o.space, Path: path, Ability: tok.Caps[0].Ability}))
}

// contents are the hashes of the databases of a Space.
func contents(t *testing.T, d *node.Data, s *databases.Service, space tinycloud.SpaceID) map[string]tinycloud.Hash {
	t.Helper()
	list, err := s.Databases(t.Context(), d.Store, space, true, 100)
	must(t, err)
	out := map[string]tinycloud.Hash{}
	for _, x := range list {
		out[x.Name] = x.Hash
	}
	return out
}

// Databases move with their Space by a file of export: nothing of them is in it but their writes. A file made by a node
// with SQL goes through one without it.
func TestDatabasesAreExported(t *testing.T) {
	o := &sqlOwner{wallet: captest.NewWallet("sql"), session: captest.NewSession("sql")}
	o.space = o.wallet.Space("default")
	host := func(d *node.Data) {
		o.delegate(t, d, o.wallet.SignHost(o.space, hostkeys.DIDKey(publicKey(d, o.space))))
	}
	var want map[string]tinycloud.Hash
	var file bytes.Buffer
	from := settings(t, "")
	withDatabases(t, from, func(d *node.Data, s *databases.Service) {
		host(d)
		o.proof = o.delegate(t, d, o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: o.session.URI(), Expires: time.Now().Add(time.Hour), Caps: captest.Caps{o.space.String() + "/sql": {"tinycloud.sql/*"}},
		}))
		for _, path := range []string{"xyz.app/notes", "default"} {
			o.run(t, d, s, path, "CREATE TABLE t(id INTEGER PRIMARY KEY, v, at DEFAULT CURRENT_TIMESTAMP, r DEFAULT (random()))")
			o.run(t, d, s, path, "INSERT INTO t(v) VALUES('"+strings.Repeat(path, 20_000)+"')")
			for i := range 20 {
				o.run(t, d, s, path, fmt.Sprintf("INSERT INTO t(v) VALUES(%d)", i))
			}
		}
		want = contents(t, d, s, o.space)
		_, err := transfer.Export(t.Context(), d, o.space, &file, io.Discard)
		must(t, err)
	})
	if len(want) != 2 || want["default"].IsZero() || want["default"] == want["xyz.app/notes"] {
		t.Fatalf("databases %v", want)
	}
	var state string
	withDatabases(t, from, func(d *node.Data, s *databases.Service) {
		st, err := d.Store.Status(t.Context(), o.space)
		must(t, err)
		state = st.StateHash
	})
	without := settings(t, "")
	with(t, without, func(d *node.Data) {
		host(d)
		x, err := transfer.Import(t.Context(), d, bytes.NewReader(file.Bytes()), io.Discard)
		if err != nil || x.Void != 0 || x.Wants != 0 {
			t.Errorf("without SQL: %+v, %v", x, err)
		}
		file.Reset()
		_, err = transfer.Export(t.Context(), d, o.space, &file, io.Discard)
		must(t, err)
	})
	to := settings(t, "")
	withDatabases(t, to, func(d *node.Data, s *databases.Service) {
		x, err := transfer.Import(t.Context(), d, bytes.NewReader(file.Bytes()), io.Discard)
		if err != nil || x.Hosted {
			t.Fatalf("%+v, %v", x, err)
		}
		host(d)
		st, err := d.Store.Status(t.Context(), o.space)
		if err != nil || st.StateHash != state || st.Pending != 0 {
			t.Errorf("%+v, %v", st, err)
		}
		if got := contents(t, d, s, o.space); len(got) != 2 || got["default"] != want["default"] || got["xyz.app/notes"] != want["xyz.app/notes"] {
			t.Errorf("imported %v, want %v", got, want)
		}
	})
	withDatabases(t, to, func(d *node.Data, s *databases.Service) {
		must(t, transfer.Verify(t.Context(), d, io.Discard, func(x capstore.Damage) { t.Errorf("found %+v", x) }))
		if n := len(databaseFiles(t, to)); n != 2 {
			t.Errorf("files of %d databases", n)
		}
	})

	// What is nobody's goes with gc, whether its database or its whole Space is gone; what is somebody's stays, and goes with
	// its Space.
	mine := databaseFiles(t, to)
	gone := tinycloud.Sum([]byte("gone")).String()
	root := filepath.Join(to.Storage.Datadir, "sql")
	for _, dir := range []string{filepath.Join(filepath.Dir(mine[0]), gone), filepath.Join(root, gone, gone)} {
		must(t, os.MkdirAll(dir, 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "base.db"), make([]byte, 4096), 0o600))
	}
	must(t, os.MkdirAll(filepath.Join(root, "notes"), 0o700))
	withDatabases(t, to, func(d *node.Data, s *databases.Service) {
		if got := contents(t, d, s, o.space); len(got) != 2 { // they are open
			t.Errorf("before gc: %v", got)
		}
		freed, _, err := transfer.Collect(t.Context(), d, io.Discard)
		if err != nil || freed.Bytes != 8192 {
			t.Errorf("freed %+v, %v", freed, err)
		}
		if got := contents(t, d, s, o.space); got["default"] != want["default"] {
			t.Errorf("after gc: %v", got)
		}
	})
	if got := databaseFiles(t, to); !slices.Equal(got, mine) {
		t.Errorf("after gc there is %v, want %v", got, mine)
	}
	if _, err := os.Stat(filepath.Join(root, "notes")); err != nil {
		t.Error(err)
	}
	withDatabases(t, to, func(d *node.Data, s *databases.Service) {
		_, err := transfer.Forget(t.Context(), d, o.space)
		must(t, err)
	})
	if got := databaseFiles(t, to); len(got) != 0 {
		t.Errorf("without the Space there is %v", got)
	}
}

// databaseFiles are the directories of databases.
func databaseFiles(t *testing.T, cfg config.Config) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(cfg.Storage.Datadir, "sql", strings.Repeat("?", 64), "*"))
	must(t, err)
	return all
}
