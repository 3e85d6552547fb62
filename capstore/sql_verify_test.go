package capstore_test

import (
	"context"
	"slices"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// lyingStore is a store in whose log of a database the last request is another.
type lyingStore struct {
	*sqlStore
	ops [][]byte
}

func (l *lyingStore) Log(ctx context.Context, space tinycloud.SpaceID, name, about string, f func(service.Log) error) error {
	return l.Store.Log(ctx, space, name, about, func(log service.Log) error { return f(&lyingLog{log, l.ops}) })
}

type lyingLog struct {
	service.Log
	ops [][]byte
}

func (l *lyingLog) Event(ctx context.Context, s service.Spot) (service.Event, error) {
	e, err := l.Log.Event(ctx, s)
	if len(e.Ops) == len(l.ops) && len(e.Ops[0]) == len(l.ops[0]) {
		e.Ops = l.ops
	}
	return e, err
}

func (l *lyingLog) Events(ctx context.Context, at []service.Spot) ([]service.Event, error) {
	list, err := l.Log.Events(ctx, at)
	for i, e := range list {
		if len(e.Ops) == len(l.ops) && len(e.Ops[0]) == len(l.ops[0]) {
			list[i].Ops = l.ops
		}
	}
	return list, err
}

// A file that is not what its writes make is found by running them again, and made anew.
func TestSQLVerify(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		o := newAuthor(t, newClock())
		stores, _ := o.writers(t, "a", "b")
		a, b := stores[0], stores[1]
		o.run(a, "db", "CREATE TABLE t(v)")
		now := o.clock.now()
		o.run(a, "db", "INSERT INTO t VALUES('true')")
		o.run(a, "unused", "CREATE TABLE t(v)")
		o.exchange(a, b)
		verify := func(want ...string) {
			t.Helper()
			var found []string
			err := b.VerifyStored(t.Context(), capstore.VerifyOptions{}, func(d capstore.Damage) { found = append(found, d.What+": "+d.Which) })
			if err != nil || !slices.Equal(found, want) {
				t.Errorf("found %q, %v; want %q", found, err, want)
			}
		}
		verify()
		lie := &lyingStore{b, statement(t, "db", now, 1, "INSERT INTO t VALUES('fals')")}
		list, err := b.sql.Databases(t.Context(), lie, o.space, true, 10)
		if err != nil || len(list) != 2 {
			t.Fatal(list, err)
		}
		if got := o.rows(b, "db", "SELECT v FROM t"); got != `[["fals"]]` {
			t.Fatalf("the file is as it should be: %s", got)
		}
		verify(`database with another content than its writes make: "db"`)
		verify()
		if got := o.same("db", "SELECT v FROM t", a, b); got != `[["true"]]` {
			t.Errorf("after that: %s", got)
		}
	})
}
