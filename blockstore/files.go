package blockstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// files is the backend that keeps each value in a file.
type files struct {
	dir     string
	fs      FS
	durable *lru.Cache[string, struct{}] // Space directories that are on stable storage
}

func newFiles(o Options) (*files, error) {
	dirs, err := lru.New[string, struct{}](durableDirs)
	if err != nil {
		return nil, err
	}
	return &files{dir: o.Dir, fs: o.FS, durable: dirs}, nil
}

// fault gives an error of the file system the class and the setting an operator has to look at.
func (f *files) fault(err error) error {
	return fmt.Errorf("storage.blocks.path %q: %w: %w", f.dir, err, tinycloud.ErrUnavailable)
}

func (f *files) check(space tinycloud.SpaceID) error {
	if _, _, ok := f.spaceDir(space); !ok {
		return fmt.Errorf("space %q has no directory: %w", space, tinycloud.ErrInvalid)
	}
	return nil
}

// path returns a value's file.
func (f *files) path(space tinycloud.SpaceID, hash tinycloud.Hash) (string, error) {
	_, dir, ok := f.spaceDir(space)
	if !ok {
		return "", f.check(space)
	}
	return filepath.Join(dir, fileName(hash)), nil
}

func (f *files) ping(context.Context) error {
	if _, err := os.Stat(f.dir); err != nil {
		return f.fault(err)
	}
	return nil
}

func (f *files) close() {}

// put renames the body's file into place.
func (f *files) put(_ context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, b body) error {
	owner, dir, ok := f.spaceDir(space)
	if !ok {
		return f.check(space)
	}
	file, err := b.file()
	if err != nil {
		return f.fault(err)
	}
	if err := f.makeDirs(owner, dir); err != nil {
		return f.fault(err)
	}
	path := filepath.Join(dir, fileName(hash))
	if err := f.fs.Rename(file, path); err != nil {
		f.durable.Remove(dir) // someone may have removed the directory: make it again next time
		return f.fault(err)
	}
	if err := f.fs.SyncDir(dir); err != nil {
		// Whether it would survive is unknown, so it must not be found present next time.
		return errors.Join(f.fault(err), f.fs.Remove(path))
	}
	return nil
}

// confirm syncs the directory: the value's writer may have been killed between the rename and that.
func (f *files) confirm(space tinycloud.SpaceID, hash tinycloud.Hash) error {
	path, err := f.path(space, hash)
	if err != nil {
		return err
	}
	// A collection leaves alone what was put a short while ago, until its row is there.
	if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
		return f.fault(err)
	}
	if err := f.fs.SyncDir(filepath.Dir(path)); err != nil {
		return f.fault(err)
	}
	return nil
}

// sectionContent is bytes whose length was taken when they were opened.
type sectionContent struct {
	*io.SectionReader
	io.Closer
}

func (f *files) open(_ context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (content, int64, error) {
	path, err := f.path(space, hash)
	if err != nil {
		return nil, 0, err
	}
	file, err := f.fs.Open(path)
	if err != nil {
		return nil, 0, f.missing(hash, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		return nil, 0, errors.Join(f.fault(err), file.Close())
	}
	return sectionContent{io.NewSectionReader(uncut{file, info.Size()}, 0, info.Size()), file}, info.Size(), nil
}

// uncut doesn't let a file end before its size: who copies it would take that for the end of the value.
type uncut struct {
	r    io.ReaderAt
	size int64
}

func (u uncut) ReadAt(p []byte, at int64) (int, error) {
	n, err := u.r.ReadAt(p, at)
	if at+int64(n) < u.size && (err == io.EOF || err == nil && n < len(p)) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (f *files) readAt(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, p []byte, at int64) error {
	c, _, err := f.open(ctx, space, hash)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.ReadFull(io.NewSectionReader(c, at, int64(len(p))), p); err != nil {
		return f.fault(err)
	}
	return nil
}

// missing tells a value that isn't there from a file system that fails.
func (f *files) missing(hash tinycloud.Hash, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return absent(hash)
	}
	return f.fault(err)
}

func (f *files) size(_ context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (int64, error) {
	path, err := f.path(space, hash)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, f.missing(hash, err)
	}
	return info.Size(), nil
}

func (f *files) modified(_ context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (time.Time, error) {
	path, err := f.path(space, hash)
	if err != nil {
		return time.Time{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}, f.missing(hash, err)
	}
	return info.ModTime(), nil
}

func (f *files) remove(_ context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) error {
	path, err := f.path(space, hash)
	if err != nil {
		return err
	}
	if err := f.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.fault(err)
	}
	return nil
}

func (f *files) walk(ctx context.Context, space tinycloud.SpaceID, fn func(tinycloud.Hash, int64) error) error {
	_, dir, ok := f.spaceDir(space)
	if !ok {
		return f.check(space)
	}
	var stop error
	err := eachEntry(dir, func(e fs.DirEntry) error {
		hash, ok := parseFileName(e.Name())
		if !ok || !e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted since it was listed
		}
		if err != nil {
			return err
		}
		if stop = ctx.Err(); stop == nil {
			stop = fn(hash, info.Size())
		}
		if stop != nil {
			return fs.SkipAll
		}
		return nil
	})
	if stop != nil {
		return stop
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.fault(err)
	}
	return nil
}

// spaces calls fn for each Space that has a directory.
func (f *files) spaces(ctx context.Context, fn func(tinycloud.SpaceID) error) error {
	var stop error
	err := eachEntry(f.dir, func(owner fs.DirEntry) error {
		if owner.Name()[0] == '.' {
			return nil
		}
		err := eachEntry(filepath.Join(f.dir, owner.Name()), func(name fs.DirEntry) error {
			space, err := tinycloud.ParseSpaceID("tinycloud:" + owner.Name() + ":" + name.Name())
			// A directory in another spelling of the DID is not the Space's.
			if _, dir, ok := f.spaceDir(space); err != nil || !ok || dir != filepath.Join(f.dir, owner.Name(), name.Name()) {
				return nil
			}
			if stop = ctx.Err(); stop == nil {
				stop = fn(space)
			}
			if stop != nil {
				return fs.SkipAll
			}
			return nil
		})
		if errors.Is(err, syscall.ENOTDIR) {
			return nil
		}
		return err
	})
	if stop != nil {
		return stop
	}
	if err != nil {
		return f.fault(err)
	}
	return nil
}
