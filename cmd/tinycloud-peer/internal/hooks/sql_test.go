package hooks_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

// databases are a host's, which follow its history.
type databases struct {
	*host
	sql *sql.Service
}

// startSQL starts a host with databases; stop stops it.
func startSQL(t *testing.T, name, path string, o hooks.Options) *databases {
	t.Helper()
	d := &databases{sql: sql.New(sql.Options{})}
	d.host = startWith(t, name, path, o, func(c capstore.Commit) { d.sql.Changed(c.Space) }, d.sql)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { d.sql.Follow(ctx, d.store) })
	stop := d.stop
	d.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		stop()
		must(t, d.sql.Close())
	})
	t.Cleanup(d.stop)
	return d
}

// sqlOptions are those of a session that may write databases too.
func sqlOptions(o *owner) captest.DelegationOptions {
	s := sessionOptions(o)
	s.Caps[o.space.String()+"/sql"] = []string{"tinycloud.sql/*"}
	return s
}

func (o *owner) execute(d *databases, path, statement string) {
	o.t.Helper()
	tok := o.token("sql/"+path, "tinycloud.sql/write")
	r := httptest.NewRequestWithContext(o.t.Context(), http.MethodPost, "/invoke", strings.NewReader(`{"action":"execute","sql":"`+statement+`"}`))
	err := d.sql.Invoke(httptest.NewRecorder(), r, service.Call{Store: d.store, Token: tok, Space: o.space, Path: path, Ability: "tinycloud.sql/write"})
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *owner) sqlScope(prefix string) hooks.Scope {
	o.t.Helper()
	s, err := hooks.NewScope(o.space.String(), "sql", prefix, nil)
	must(o.t, err)
	return s
}

// Streams and webhooks are told the tables that a write of this host or another changed. Both spellings of a database's path
// match. A webhook is told what came while its node was down.
func TestTablesOfDatabases(t *testing.T) {
	c := newCallback(t, ok)
	path := filepath.Join(t.TempDir(), "caps.db")
	a := startSQL(t, "a", path, hooks.Options{Transport: c, Lookup: publicName})
	b := startSQL(t, "b", filepath.Join(t.TempDir(), "caps.db"), hooks.Options{})
	o := newOwner(t, "alice")
	o.header = o.wallet.SignDelegation(sqlOptions(o))
	o.on(a.host)
	o.execute(a, "x.app/notes", "CREATE TABLE before(v)")
	pull := func(to, from *databases) {
		var bundles []hostlog.Bundle
		must(t, from.store.Missing(t.Context(), o.space, nil, 1<<20, func(b hostlog.Bundle) error { bundles = append(bundles, b); return nil }))
		if _, err := to.store.Apply(t.Context(), o.space, bundles); err != nil {
			t.Fatal(err)
		}
	}
	o.on(b.host)

	short, whole := a.read(o.ticket(a.host, o.sqlScope("notes")), "", nil), a.read(o.ticket(a.host, o.sqlScope("/x.app/notes/t/")), "", nil)
	other := a.read(o.ticket(a.host, o.sqlScope("x.app/note"), o.sqlScope("t"), o.scope("")), "", nil)
	for _, r := range []*reader{short, whole, other} {
		r.note()
	}
	register := hooks.Registration{Scope: o.sqlScope("notes/t"), CallbackURL: "https://example.com/hook", Secret: "s3cret"}
	if _, err := a.hooks.Register(t.Context(), o.token("hooks", hooks.AbilityRegister), register); err != nil {
		t.Fatal(err)
	}
	o.execute(a, "x.app/notes", "CREATE TABLE t(v)")
	o.execute(a, "y.app/notes", "CREATE TABLE u(v)")
	o.execute(a, "x.app/notes", "INSERT INTO t VALUES(1)")
	o.put(a.host, "end")
	var got []string
	for range 3 {
		e := short.next()
		got = append(got, e.Path)
		if e.Service != "sql" || e.Ability != "tinycloud.sql/write" || e.Type != "write" || e.EventIndex != 0 || e.ID != e.Epoch+":0" || e.Actor != string(o.session.DID()) {
			t.Errorf("event %+v", e)
		}
	}
	for range 2 {
		got = append(got, "whole "+whole.next().Path)
	}
	got = append(got, "other "+other.next().Path)
	for range 2 {
		q := <-c.got
		got = append(got, "webhook "+q.event.Path)
	}
	want := []string{"notes/t", "notes/u", "notes/t", "whole notes/t", "whole notes/t", "other end", "webhook notes/t", "webhook notes/t"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	pull(b, a)
	o.execute(b, "x.app/notes", "DELETE FROM t")
	pull(a, b)
	last := short.next()
	if last.Path != "notes/t" {
		t.Errorf("of another host: %+v", last)
	}
	<-c.got

	// The node starts again; what came meanwhile is told, to who goes on from the last event and to the webhook.
	for _, r := range []*reader{short, whole, other} {
		r.end()
	}
	a.stop()
	o.execute(b, "x.app/notes", "INSERT INTO t VALUES(2)")
	a = startSQL(t, "a", path, hooks.Options{Transport: c, Lookup: publicName})
	pull(a, b)
	if q := <-c.got; q.event.Path != "notes/t" || !q.signed {
		t.Errorf("the webhook after a restart: %+v", q)
	}
	again := a.read(o.ticket(a.host, o.sqlScope("notes")), last.ID, nil)
	if got := again.note(); got != "connected" {
		t.Error(got)
	}
	if e := again.next(); e.Path != "notes/t" || e.ID == last.ID {
		t.Errorf("after a restart: %+v", e)
	}
	if _, ok := a.store.Listened(o.space, "sql"); !ok {
		t.Error("nobody listens")
	}
}
