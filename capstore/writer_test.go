package capstore_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// A put does not wait until another Space has entered all that a peer sent.
func TestPutComesBetween(t *testing.T) {
	c := newClock()
	long, quiet := newOwner(t, "long", c), newOwner(t, "quiet", c)
	from := openNew(t, "from", c)
	long.hostOn(from)
	from.delegate(long.header)
	for i := range 4 * capstore.BulkFrom {
		if err := long.put(from, fmt.Sprint("k", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	busy, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := openWith(t, "to", c, newDatabase(t), func(o *capstore.Options) {
		note := o.Committed
		o.Committed = func(c capstore.Commit) {
			note(c)
			if c.Space == quiet.space && len(c.Writes) > 0 {
				once.Do(func() { close(busy); <-goOn }) // the writer waits
			}
		}
	})
	long.hostOn(s)
	quiet.hostOn(s)
	s.delegate(quiet.header)
	bundles := all(t, from, long.space)

	var wg sync.WaitGroup
	put := func(key string) {
		if err := quiet.put(s, key, "v"); err != nil {
			t.Error(err)
		}
	}
	wg.Go(func() { put("first") })
	<-busy
	s.mu.Lock()
	before := len(s.commits)
	s.mu.Unlock()
	wg.Go(func() {
		if a, err := s.Apply(t.Context(), long.space, bundles); err != nil || a.Covered != len(bundles) || a.New != len(bundles) {
			t.Errorf("%+v %v", a, err)
		}
	})
	wg.Go(func() { put("second") })
	waiting(t, s)
	close(goOn)
	wg.Wait()
	entered, atPut := 0, -1
	for _, c := range s.commits[before:] {
		entered += c.Remote
		if c.Space == quiet.space {
			atPut = entered
		}
	}
	if entered != len(bundles) || atPut < 0 || atPut > capstore.BulkFrom {
		t.Errorf("the put came after %d of %d entries", atPut, entered)
	}
}

// waiting waits until the writer has a job of each kind to do.
func waiting(t *testing.T, s *testStore) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); ; {
		if jobs, bulk := capstore.Waiting(s.Store); jobs > 0 && bulk > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("nothing waits for the writer")
		}
	}
}
