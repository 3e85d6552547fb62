package sql

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

var errNoWrite = tinycloud.Refuse(tinycloud.ErrNotFound, "No such write of this database")

// outcome answers what became of a write, as far as the history that is here tells.
func (s *Service) outcome(w http.ResponseWriter, r *http.Request, c service.Call, a authority, d *database, epoch tinycloud.Hash) error {
	if err := a.held.PermitExport(); err != nil {
		return err
	}
	if err := c.Store.Burn(r.Context(), c.Token); err != nil {
		return err
	}
	reason, at, err := s.becameOf(r.Context(), c.Store, d, epoch)
	if err != nil {
		return err
	}
	out := struct {
		Applied bool    `json:"applied"`
		Error   *string `json:"error"`
		Hosts   int     `json:"hosts"`
		Of      int     `json:"of"`
	}{Applied: reason == nil, Error: reason}
	if out.Hosts, out.Of, err = c.Store.Holders(r.Context(), d.of.space, at); err != nil {
		return err
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return send(w, b)
}

// becameOf is why a write did nothing, nil if it was applied, and the epoch where it counts.
func (s *Service) becameOf(ctx context.Context, store service.Store, d *database, epoch tinycloud.Hash) (reason *string, at tinycloud.Hash, err error) {
	v, err := s.verdictOn(ctx, store, d, epoch)
	if err != nil || v.found {
		return v.reason(), epoch, err
	}
	void, found, err := store.Unapplied(ctx, d.of.space, request.Service, d.of.path, epoch)
	if err == nil && !found {
		err = errNoWrite
	}
	if err != nil {
		return nil, epoch, err
	}
	if d.again(&void) {
		if v, err = s.verdictOn(ctx, store, d, void.Instead.Epoch); err != nil || v.found {
			return v.reason(), void.Instead.Epoch, err
		}
	}
	text := "The write does not count: " + void.Why
	return &text, epoch, nil
}

// again reports whether the request of a write that does not count does so elsewhere: a client may post one to two hosts.
func (d *database) again(v *service.Dropped) bool {
	if v.Instead == nil {
		return false
	}
	a, err1 := d.join(v.Ops)
	b, err2 := d.join(v.Instead.Ops)
	if err1 != nil || err2 != nil {
		return false
	}
	a.Now, b.Now, a.Rules, b.Rules = 0, 0, 0, 0
	x, err1 := a.Encode(d.of.path)
	y, err2 := b.Encode(d.of.path)
	return err1 == nil && err2 == nil && slices.EqualFunc(x, y, bytes.Equal)
}

// verdict is what became of a write.
type verdict struct {
	found  bool // it counts
	known  bool // what follows is
	failed bool
	text   string
}

func (v verdict) reason() *string {
	if v.failed {
		return &v.text
	}
	return nil
}

// verdictOn is what became of the write of an epoch.
func (s *Service) verdictOn(ctx context.Context, store service.Store, d *database, epoch tinycloud.Hash) (verdict, error) {
	v, key, err := d.verdictOn(ctx, store, epoch)
	if err != nil || !v.found || v.known {
		return v, err
	}
	v.known = true
	return v, s.recall(ctx, store, d, func(op *engine.Op, r engine.Result) {
		if op.Key == key {
			if v.failed = r.Err != nil; v.failed {
				v.text = r.Err.Error()
			}
		}
	})
}

func (d *database) verdictOn(ctx context.Context, store service.Store, epoch tinycloud.Hash) (v verdict, key tinycloud.Hash, err error) {
	if err := d.enter(ctx); err != nil {
		return v, key, err
	}
	defer d.leave()
	if err := d.follow(ctx, store); err != nil {
		return v, key, err
	}
	found, pos, key, err := d.find(ctx, store, epoch)
	v.found, v.known = found, pos >= d.since && d.aside.Load() == nil
	v.text, v.failed = d.failed[key]
	return v, key, err
}

// find finds the place of a write.
func (d *database) find(ctx context.Context, store service.Store, epoch tinycloud.Hash) (found bool, pos uint64, key tinycloud.Hash, err error) {
	n := uint64(0)
	err = store.Log(ctx, d.of.space, request.Service, d.of.path, func(l service.Log) error {
		return each(ctx, l, nil, func(p *place) error {
			if !found && p.first.At.Epoch == epoch {
				found, pos, key = true, n, p.key
			}
			n++
			return nil
		})
	})
	return found, pos, key, err
}

// recall makes the database anew beside itself, to see what became of writes before it was opened. told is called with the
// verdicts; the last one on a write counts.
func (s *Service) recall(ctx context.Context, store service.Store, d *database, told func(*engine.Op, engine.Result)) error {
	select {
	case s.replaying <- struct{}{}:
		defer func() { <-s.replaying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var x *database
	if err := s.beside(ctx, store, d, told, func(made *database) error { x = made; return nil }); err != nil {
		return err
	}
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.leave()
	if d.at.at == x.at.at && !d.lost && d.aside.Load() == nil && x.since < d.since { // so that it needs no other time
		d.failed, d.since = x.failed, x.since
	}
	return nil
}

// beside makes a database anew beside the one in use, and calls f with it before it goes. told may be nil.
func (s *Service) beside(ctx context.Context, store service.Store, d *database, told func(*engine.Op, engine.Result), f func(*database) error) (err error) {
	dir, err := s.passingDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	x := s.detached(d.of, filepath.Join(dir, "database"))
	x.told = told
	if err = x.follow(ctx, store); err == nil {
		err = f(x)
	}
	return errors.Join(err, x.close())
}
