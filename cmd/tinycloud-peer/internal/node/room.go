package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

const roomFor = time.Second // what was found holds

// room tells when the disk is as full as it may become. What frees room goes on: deletes, revocations, collections.
type room struct {
	dirs    []string
	reserve int64 // bytes that stay free; 0: nothing is asked
	free    func(dir string) (int64, error)
	now     func() time.Time
	log     *slog.Logger

	mu    sync.Mutex
	until time.Time // guarded by mu
	full  bool      // guarded by mu
}

// newRoom looks at the disks that the database and the values are on. An error of a look is no reason to refuse.
func newRoom(cfg config.Config, log *slog.Logger) *room {
	r := &room{reserve: int64(cfg.Storage.Reserve), free: blockstore.OS{}.Free, now: time.Now, log: log}
	r.dirs = append(r.dirs, cfg.BlocksDir())
	if path := cfg.Storage.Database.Path(); path != "" && !cfg.Storage.Database.InMemory() {
		r.dirs = append(r.dirs, filepath.Dir(path))
	}
	return r
}

// check is a refusal of class [tinycloud.ErrFull] while less is free than has to stay so.
func (r *room) check() error {
	if r.reserve == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); !now.Before(r.until) {
		r.until = now.Add(roomFor)
		r.look()
	}
	if r.full {
		return tinycloud.Refuse(tinycloud.ErrFull, "This node has no room left")
	}
	return nil
}

// look finds out. The caller holds mu.
func (r *room) look() {
	full := false
	for _, dir := range r.dirs {
		free, err := r.free(dir)
		full = full || err == nil && free < r.reserve
	}
	if full != r.full {
		r.full = full
		if full {
			r.log.Warn("storage.reserve: the disk is full: nothing is written or replicated but what frees room", "reserve", r.reserve)
		} else {
			r.log.Info("storage.reserve: there is room again")
		}
	}
}

// replicated is the store as replicas see it: without room nothing is taken from other hosts, who bring it later.
type replicated struct {
	*capstore.Store
	room *room
}

// ApplyChecked takes entries from other hosts.
func (s replicated) ApplyChecked(ctx context.Context, v hostlog.Checked) (hostlog.Applied, error) {
	if err := s.room.check(); err != nil {
		return hostlog.Applied{}, err
	}
	return s.Store.ApplyChecked(ctx, v)
}

// Takes is nil while there is room.
func (s replicated) Takes(ctx context.Context, space tinycloud.SpaceID) error {
	if err := s.room.check(); err != nil {
		return err
	}
	return s.Store.Takes(ctx, space)
}

// Wants are none without room; they are asked for again within a minute.
func (s replicated) Wants(ctx context.Context, space tinycloud.SpaceID, limit int) ([]hostlog.Want, error) {
	if s.room.check() != nil {
		return nil, nil
	}
	return s.Store.Wants(ctx, space, limit)
}
