package transfer

import (
	"context"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// Forget deletes a Space from a stopped node. When it is interrupted, it can be repeated, or "gc" tells of files that are
// left. The stores are not to be used after it.
func Forget(ctx context.Context, d *node.Data, space tinycloud.SpaceID) (freed capstore.Freed, err error) {
	var values []tinycloud.Hash
	err = d.Blocks.Walk(ctx, space, func(h tinycloud.Hash, size int64) error {
		values = append(values, h)
		freed.Bytes += size
		return nil
	})
	if err != nil {
		return freed, err
	}
	for _, h := range values { // first: a Space without them is fetched again, files without a Space are not found
		if err := d.Blocks.Delete(ctx, space, h); err != nil {
			return freed, err
		}
		freed.Values++
	}
	others := slices.DeleteFunc(append(d.Store.Spaces(), d.Store.Imported()...), func(x tinycloud.SpaceID) bool { return x == space })
	files, err := d.CollectFiles(ctx, others)
	if freed.Bytes += files; err != nil {
		return freed, err
	}
	return freed, d.Store.Alone(ctx, func(ctx context.Context) error { return d.Store.Forget(ctx, space) })
}
