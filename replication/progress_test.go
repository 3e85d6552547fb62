package replication_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

func TestProgress(t *testing.T) {
	var p replication.Progress
	begin := time.Unix(1_000_000, 0)
	after := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	check := func(at int, want *replication.CatchUp) {
		t.Helper()
		if diff := cmp.Diff(want, p.View(after(at))); diff != "" {
			t.Errorf("after %d s: %s", at, diff)
		}
	}
	check(0, nil)
	p.Begin(begin, 1000)
	check(0, &replication.CatchUp{Total: 1000})
	p.Add(after(5), 100)
	check(5, &replication.CatchUp{Entries: 100, Total: 1000, PerSecond: 20, Left: 45 * time.Second})
	for at := 10; at <= 20; at += 5 { // it becomes faster: what was long ago does not count
		p.Add(after(at), 200)
	}
	check(20, &replication.CatchUp{Entries: 700, Total: 1000, PerSecond: 40, Left: 7500 * time.Millisecond})
	p.End(after(20))
	check(20, nil)
	p.Begin(after(21), 500) // another stream goes on
	p.Add(after(21), 100)
	if c := p.View(after(21)); c.Entries != 800 || c.Total != 1200 {
		t.Errorf("a stream that goes on shows %+v", c)
	}
	p.End(after(22))
	p.Begin(after(100), 50)
	check(100, &replication.CatchUp{Total: 50})
}

// While a stream catches the Space up, its status says how far it is.
func TestCatchUpIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("progress")
		first := newNode(t, f, o, "first")
		first.delegate(o.header)
		const writes = 600 // more than a batch
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := w; i < writes; i += 16 {
					first.put(fmt.Sprint("key/", i), "value")
				}
			})
		}
		wg.Wait()
		late := &node{t: t, o: o, name: "late", f: f, dir: t.TempDir(), values: newMemValues()}
		var shown []replication.CatchUp // as the batches become durable
		late.commit = func(c capstore.Commit) {
			if c.Remote == 0 {
				return
			}
			if s := late.r.Status().CatchUp; s != nil {
				shown = append(shown, *s)
			}
		}
		late.start(t)
		late.join(first)
		same(t, first, late)
		until(t, "nothing is being caught up", func() bool { return late.r.Status().CatchUp == nil })
		// A batch counts a moment after it is durable.
		under := func(c replication.CatchUp) bool { return c.Entries > 0 && c.Entries < c.Total }
		if len(shown) < 2 || shown[0].Entries != 0 || shown[0].Total < writes || !slices.ContainsFunc(shown, under) {
			t.Errorf("shown %+v", shown)
		}
	})
}
