package transfer

import (
	"context"
	"fmt"
	"io"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
)

// Verify hashes and judges everything a node has stored again, and calls damaged for each thing that is
// wrong.
func Verify(ctx context.Context, d *node.Data, log io.Writer, damaged func(capstore.Damage)) error {
	bar := progress.New(log, "verify", "items", 0)
	defer bar.Done()
	return d.Store.VerifyStored(ctx, capstore.VerifyOptions{
		Large: func(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64) error {
			n, err := d.Blocks.Size(ctx, space, hash)
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes, should be %d: %w", n, size, tinycloud.ErrForged)
			}
			if err != nil {
				return err
			}
			return d.Blocks.Verify(ctx, space, hash)
		},
		Checked: func(n int64) { bar.Add(1, n) },
	}, damaged)
}
