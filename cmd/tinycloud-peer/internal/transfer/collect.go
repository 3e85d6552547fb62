package transfer

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
)

// Collect frees the values that no key of their Space holds, and files of databases that are gone. Directories of Spaces that
// the database does not know are told of and left: they may be another database's.
func Collect(ctx context.Context, d *node.Data, log io.Writer) (freed capstore.Freed, unknown []tinycloud.SpaceID, err error) {
	spaces := d.Store.Spaces()
	bar := progress.New(log, "gc", "spaces", int64(len(spaces)))
	defer bar.Done()
	for _, space := range spaces {
		f, err := d.Store.Sweep(ctx, space)
		if err != nil {
			return freed, nil, err
		}
		freed.Values, freed.Bytes = freed.Values+f.Values, freed.Bytes+f.Bytes
		bar.Add(1, 0)
	}
	files, err := d.CollectFiles(ctx, append(spaces, d.Store.Imported()...))
	if freed.Bytes += files; err != nil {
		return freed, nil, err
	}
	began := time.Now()
	err = d.Blocks.Spaces(ctx, func(space tinycloud.SpaceID) error {
		if !d.Store.Known(space) {
			unknown = append(unknown, space)
			return nil
		}
		u, err := d.Blocks.Collect(ctx, space, began.Add(time.Minute), func(h tinycloud.Hash) (bool, error) {
			return d.Store.Held(ctx, space, h)
		})
		freed.Values, freed.Bytes = freed.Values+int64(u.Values), freed.Bytes+u.Bytes
		return err
	})
	return freed, unknown, err
}

// Compact gives the room of what was deleted back to the file system and returns how much that is, in bytes,
// for the given directories and files.
func Compact(ctx context.Context, d *node.Data, paths ...string) (freed int64, err error) {
	before, err := taken(paths)
	if err != nil {
		return 0, err
	}
	if err := d.Store.Compact(ctx); err != nil {
		return 0, err
	}
	if err := d.Blocks.Compact(ctx); err != nil {
		return 0, err
	}
	after, err := taken(paths)
	return before - after, err
}

// taken sums the sizes of files.
func taken(paths []string) (n int64, err error) {
	for _, p := range paths {
		err := filepath.WalkDir(p, func(_ string, e fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil {
				return err
			}
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
				n += info.Size()
			}
			return nil
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
