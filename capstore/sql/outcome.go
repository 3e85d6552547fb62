package sql

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
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
	reason, err := s.verdictOn(r.Context(), c.Store, d, epoch)
	if err != nil {
		return err
	}
	out := struct {
		Applied bool    `json:"applied"`
		Error   *string `json:"error"`
		Hosts   int     `json:"hosts"`
		Of      int     `json:"of"`
	}{Applied: reason == nil, Error: reason}
	if out.Hosts, out.Of, err = c.Store.Holders(r.Context(), d.of.space, epoch); err != nil {
		return err
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return send(w, b)
}

// verdictOn is why a write did nothing, nil if it was applied.
func (s *Service) verdictOn(ctx context.Context, store service.Store, d *database, epoch tinycloud.Hash) (reason *string, err error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	found, pos, key, err := false, uint64(0), tinycloud.Hash{}, d.follow(ctx, store)
	if err == nil {
		found, pos, key, err = d.find(ctx, store, epoch)
	}
	known := err == nil && pos >= d.since && d.aside.Load() == nil
	text, failed := d.failed[key]
	d.leave()
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, errNoWrite
	case !known:
		return s.replay(ctx, store, d.of, key)
	case failed:
		return &text, nil
	}
	return nil, nil
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

// replay makes the database anew beside itself, to see what became of a write before it was opened.
func (s *Service) replay(ctx context.Context, store service.Store, of name, key tinycloud.Hash) (reason *string, err error) {
	select {
	case s.replaying <- struct{}{}:
		defer func() { <-s.replaying }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	dir, err := s.passingDir()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := s.detached(of, filepath.Join(dir, "database"))
	err = d.follow(ctx, store)
	if text, failed := d.failed[key]; failed {
		reason = &text
	}
	return reason, errors.Join(err, d.close())
}
