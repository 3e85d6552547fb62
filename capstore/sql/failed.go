package sql

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Failure is a write that this host answered, and that did nothing after all.
type Failure struct {
	Epoch      tinycloud.Hash
	At         time.Time
	Error      string
	Schema     []string // of the request
	Statements []request.Statement
	Cut        bool // the request is longer than what is shown of it
}

// Bounds of what is shown of writes that failed.
const (
	rememberedFailures = 1 << 14 // of all hosts, the newest; of those of this host are taken
	shownRequest       = 16 << 10
	shownError         = 500
)

// FailedAfter is a place in the list of writes that failed: behind one of them.
type FailedAfter struct {
	At    time.Time
	Epoch tinycloud.Hash
}

// before reports whether a write comes before or at the place in the list, or is no further one.
func (a FailedAfter) before(written int64, epoch tinycloud.Hash) bool {
	if a.At.IsZero() {
		return false
	}
	return cmp.Or(cmp.Compare(a.At.UnixMilli(), written), bytes.Compare(a.Epoch[:], epoch[:])) <= 0
}

// Failed are the writes of this host to a database that failed after they were answered, the newest first, behind a place in
// that list. Nothing of them is stored: where it is not known any more, all writes run again beside the database.
func (s *Service) Failed(ctx context.Context, store service.Store, space tinycloud.SpaceID, path string, after FailedAfter, limit int) ([]Failure, error) {
	d, err := s.acquire(name{space, pathOf(path)})
	if err != nil {
		return nil, err
	}
	defer s.release(d)
	why, err := s.failures(ctx, store, d)
	if err != nil {
		return nil, err
	}
	out, err := d.own(ctx, store, why, after, limit)
	if err != nil {
		return nil, err
	}
	most := limit
	if !after.At.IsZero() {
		most = rememberedFailures
	}
	void, err := store.Dropped(ctx, space, request.Service, d.of.path, most)
	if err != nil {
		return nil, err
	}
	for i := range void {
		if !after.before(void[i].Written, void[i].Epoch) && !d.again(&void[i]) {
			out = append(out, d.failure(void[i].Epoch, void[i].Written, "The write does not count: "+void[i].Why, void[i].Ops))
		}
	}
	slices.SortFunc(out, func(a, b Failure) int { return cmp.Or(b.At.Compare(a.At), bytes.Compare(b.Epoch[:], a.Epoch[:])) })
	return out[:min(len(out), limit)], nil
}

// failures are why writes did nothing, by their keys.
func (s *Service) failures(ctx context.Context, store service.Store, d *database) (map[tinycloud.Hash]string, error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	err := d.follow(ctx, store)
	whole, known := d.since == 0 && d.aside.Load() == nil, make(map[tinycloud.Hash]string, len(d.failed))
	for key, text := range d.failed {
		known[key] = text
	}
	d.leave()
	if err != nil || whole {
		return known, err
	}
	clear(known)
	var order []tinycloud.Hash
	return known, s.recall(ctx, store, d, func(op *engine.Op, r engine.Result) {
		delete(known, op.Key)
		if r.Err == nil {
			return
		}
		text := r.Err.Error()
		known[op.Key] = text[:min(len(text), shownError)]
		if order = append(order, op.Key); len(order) > rememberedFailures {
			delete(known, order[0])
			order = order[1:]
		}
	})
}

// own are those failures that this host answered.
func (d *database) own(ctx context.Context, store service.Store, why map[tinycloud.Hash]string, after FailedAfter, limit int) (out []Failure, err error) {
	if len(why) == 0 {
		return nil, nil
	}
	err = store.Log(ctx, d.of.space, request.Service, d.of.path, func(l service.Log) error {
		var failed []*place
		err := each(ctx, l, nil, func(p *place) error {
			if _, ok := why[p.key]; ok && !after.before(p.first.Written, p.first.At.Epoch) {
				failed = append(failed, p)
			}
			return nil
		})
		if err != nil {
			return err
		}
		slices.SortStableFunc(failed, func(a, b *place) int {
			return cmp.Or(cmp.Compare(b.first.Written, a.first.Written), bytes.Compare(b.first.At.Epoch[:], a.first.At.Epoch[:]))
		})
		for _, p := range failed {
			if own, err := l.Own(ctx, p.first); err != nil {
				return err
			} else if !own {
				continue
			}
			e, err := l.Event(ctx, p.first)
			if err != nil {
				return err
			}
			if out = append(out, d.failure(p.first.At.Epoch, p.first.Written, why[p.key], e.Ops)); len(out) == limit {
				return nil
			}
		}
		return nil
	})
	return out, err
}

// failure shows a write. One that can't be read, which this host never makes, is shown without statements.
func (d *database) failure(epoch tinycloud.Hash, written int64, why string, ops [][]byte) Failure {
	f := Failure{Epoch: epoch, At: time.UnixMilli(written).UTC(), Error: why}
	o, err := d.join(ops)
	if err != nil {
		return f
	}
	left := shownRequest
	for _, sql := range o.Request.Schema {
		if left -= len(sql); left < 0 {
			f.Cut = true
			return f
		}
		f.Schema = append(f.Schema, sql)
	}
	for _, s := range o.Request.Statements {
		b, err := json.Marshal(s.Params)
		if left -= cmp.Or(len(s.SQL), 1) + len(b); left < 0 || err != nil {
			f.Cut = true
			return f
		}
		f.Statements = append(f.Statements, s)
	}
	return f
}
