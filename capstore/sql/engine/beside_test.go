package engine_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Queries, views and copies beside a writer whose log goes to the base all the time see whole states, each no older than the one
// before.
func TestBesideFolds(t *testing.T) {
	h := newHost(t, engine.Options{FoldAt: 24, Keep: 8, UndoPages: 64})
	h.follow([]engine.Op{operation(1, stmt("CREATE TABLE a(n, x)"), stmt("CREATE TABLE b(n, x)"))}, 0)
	const query = "SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b), (SELECT ifnull(max(n), 0) FROM a)"
	q := &request.Request{Action: request.Query, Statements: []request.Statement{stmt(query)}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	// whole returns the greatest row of a state.
	whole := func(answer []byte, err error) (n int) {
		var a, b int
		_, rows, _ := strings.Cut(string(answer), `"rows":`)
		if _, scan := fmt.Sscanf(rows, "[[%d,%d,%d]]", &a, &b, &n); err != nil || scan != nil || a != b {
			t.Errorf("%s %v: %v", answer, err, scan)
		}
		return n
	}
	for range 3 {
		wg.Go(func() {
			last := 0
			for ctx.Err() == nil {
				n := whole(h.View().Query(context.WithoutCancel(ctx), q, gate.Reads, nil))
				if n < last {
					t.Errorf("%d after %d", n, last)
				}
				last = n
			}
		})
	}
	copies := t.TempDir()
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			dir := filepath.Join(copies, fmt.Sprint(i))
			if err := h.CopyTo(dir); err != nil {
				t.Error(err)
				return
			}
			db, err := engine.Open(dir, engine.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			whole(db.Query(context.WithoutCancel(ctx), q, gate.Reads, nil))
			if pos, _ := db.Position(); pos > 1 {
				_, err = db.Rewind(pos - 1)
				if !errors.Is(err, engine.ErrGone) && err != nil {
					t.Error(err)
				}
				whole(db.Query(context.WithoutCancel(ctx), q, gate.Reads, nil))
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 120 {
		op := operation(uint64(10+i), stmt("INSERT INTO a VALUES(?, hex(randomblob(300)))", int64(i)), stmt("DELETE FROM b WHERE n % 7 = 3"), stmt("DELETE FROM a WHERE n % 7 = 3"), stmt("INSERT INTO b SELECT n, x FROM a WHERE n NOT IN (SELECT n FROM b)"))
		if res := h.try(op); res.Err != nil {
			t.Fatal(res.Err)
		}
		h.Take(&op)
		if err := h.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	v := h.View()
	if _, err := h.Rewind(100); err != nil && !errors.Is(err, engine.ErrGone) {
		t.Fatal(err)
	}
	if _, err := v.Query(t.Context(), q, gate.Reads, nil); !errors.Is(err, engine.ErrMoved) {
		t.Errorf("a view that the files went back behind: %v", err)
	}
}

// passing is a context that ends once somebody has asked whether it has.
type passing struct {
	context.Context
	asked atomic.Bool
}

func (*passing) Done() <-chan struct{} {
	over := make(chan struct{})
	close(over)
	return over
}

func (p *passing) Err() error {
	if p.asked.Swap(true) {
		return context.DeadlineExceeded
	}
	return nil
}

// The error of a query whose time ended tells whether it ran then: only that is its own fault.
func TestTimeOfQuery(t *testing.T) {
	h := newHost(t, engine.Options{})
	q := &request.Request{Action: request.Query, Statements: []request.Statement{stmt("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) FROM n")}}
	for ran, ctx := range map[bool]*passing{true: {Context: t.Context()}, false: {Context: t.Context()}} {
		ctx.asked.Store(!ran)
		_, err := h.Query(ctx, q, gate.Reads, nil)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, tinycloud.ErrInvalid) != ran {
			t.Errorf("it ran: %v: %v", ran, err)
		}
	}
}
