package reference

import (
	"context"
	"errors"
	"io"
	"os"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
)

// Bucket is the bucket storage.blocks.bucket of a node (docs/protocol.md, "Values"), which is laid out as ours are.
type Bucket struct {
	store *blockstore.Store
	name  string
	temp  string
}

// OpenBucket opens a bucket; nothing is written there. The caller closes it.
func OpenBucket(ctx context.Context, where *blockstore.S3) (*Bucket, error) {
	temp, err := os.MkdirTemp("", "tinycloud-peer-")
	if err != nil {
		return nil, err
	}
	b := &Bucket{name: where.Bucket, temp: temp}
	if b.store, err = blockstore.Open(ctx, blockstore.Options{Dir: temp, S3: where}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(temp))
	}
	return b, nil
}

// Close releases the bucket.
func (b *Bucket) Close() error { return errors.Join(b.store.Close(), os.RemoveAll(b.temp)) }

// Where is an object's key.
func (b *Bucket) Where(space Space, hash tinycloud.Hash) string {
	return "s3://" + b.name + "/" + space.ID.String() + "/" + blockName(hash)
}

// Open opens an object. The names of Spaces in it are as 1.16.0 spells them.
func (b *Bucket) Open(ctx context.Context, space Space, hash tinycloud.Hash) (io.ReadCloser, error) {
	v, _, err := b.store.Open(ctx, space.ID, hash)
	if err != nil {
		return nil, err
	}
	return v, nil
}
