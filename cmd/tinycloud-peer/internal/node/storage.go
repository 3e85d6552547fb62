package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// values shows the block store to the database as the holder of large values.
type values struct{ n *Node }

// Open returns a value.
func (v values) Open(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (io.ReadSeekCloser, error) {
	value, _, err := v.n.blocks.Open(ctx, space, hash)
	if err != nil {
		return nil, err // a nil *Value in an interface would not be nil
	}
	return value, nil
}

// inline shows the values in the database to the block store.
func (n *Node) inline(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) ([]byte, error) {
	b, err := n.store.Inline(ctx, space, hash)
	if err == nil && b == nil {
		return nil, fmt.Errorf("value %s is not in the database: %w", hash, tinycloud.ErrNotFound)
	}
	return b, err
}

// stage shows the block store to the HTTP API.
func (n *Node) stage(ctx context.Context, body io.Reader, limit int64) (httpapi.Staged, error) {
	staged, err := n.blocks.Stage(ctx, body, limit)
	if err != nil {
		return nil, err
	}
	return staged, nil
}

// fetched shows the stores to replication, which fills them with values of other hosts.
type fetched struct{ n *Node }

// PutValue stores a value of one block.
func (f fetched) PutValue(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, b []byte) error {
	if err := f.reserve(ctx, space, hash, int64(len(b))); err != nil {
		return err
	}
	defer f.n.spaces.comingTo(space).release(hash)
	return f.n.blocks.PutValue(ctx, space, hash, b)
}

// Assemble begins, or takes up, a value listed by a manifest block.
func (f fetched) Assemble(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64, manifest []byte) (replication.Assembly, error) {
	m, err := blockstore.DecodeManifest(manifest)
	if err != nil {
		return nil, err
	}
	if size != 0 && m.Size != size {
		return nil, fmt.Errorf("manifest of %d bytes for a value of %d: %w", m.Size, size, tinycloud.ErrInvalid)
	}
	if err := f.reserve(ctx, space, hash, m.Size); err != nil {
		return nil, err
	}
	a, err := f.n.blocks.Assemble(ctx, space, hash, m)
	if err != nil {
		if !errors.Is(err, tinycloud.ErrConflict) { // of which another call is
			f.n.spaces.comingTo(space).release(hash)
		}
		return nil, err
	}
	return reserved{a, hash, f.n.spaces.comingTo(space)}, nil
}

// Locate returns the size and manifest of a value that is here.
func (f fetched) Locate(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (int64, tinycloud.Hash, error) {
	b, err := f.n.inline(ctx, space, hash)
	if err == nil {
		return int64(len(b)), tinycloud.Hash{}, nil
	}
	if !errors.Is(err, tinycloud.ErrNotFound) {
		return 0, tinycloud.Hash{}, err
	}
	m, err := f.n.blocks.Manifest(ctx, space, hash)
	if err != nil || len(m.Links) == 0 {
		return m.Size, tinycloud.Hash{}, err
	}
	return m.Size, tinycloud.HashOf(m.CID()), nil
}

// repair brings the chunk index up to date. The place of the values may be out of reach for a while; meanwhile peers
// just don't get all chunks.
func (n *Node) repair(ctx context.Context) {
	const again = 30 * time.Second
	for {
		err := n.blocks.Repair(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		n.log.WarnContext(ctx, "chunk index not repaired, trying again", "error", err)
		if !wait.For(ctx, again) {
			return
		}
	}
}

// health reports whether values can be read and written; the API asks the database itself.
func (n *Node) health(ctx context.Context) error {
	if n.cfg.Storage.Blocks.Type == config.BlocksS3 {
		return n.probed.ask(ctx)
	}
	return n.blocks.Ping(ctx)
}
