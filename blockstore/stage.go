package blockstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Stage is a hashed body that belongs to no Space yet. It is used by one goroutine and ends with Commit or
// Discard.
type Stage struct {
	s        *Store
	hash     tinycloud.Hash
	manifest Manifest

	// The body is in mem, or, when file is set, in the file at path.
	mem   inMemory
	file  File
	path  string
	ended bool
}

// Stage reads a body of at most limit bytes to its end and hashes it. A body up to InlineLimit never
// touches the disk. Errors leave nothing behind: of class [tinycloud.ErrTooLarge] for a longer body,
// [tinycloud.ErrUnavailable] when the disk fails, Options.Room's; else the error is the reader's, or ctx's.
func (s *Store) Stage(ctx context.Context, r io.Reader, limit int64) (*Stage, error) {
	st := &Stage{s: s}
	if err := st.fill(ctx, r, min(limit, MaxSize)); err != nil {
		st.Discard()
		return nil, err
	}
	return st, nil
}

func (st *Stage) fill(ctx context.Context, r io.Reader, limit int64) error {
	if err := st.s.o.Room(); err != nil {
		return err
	}
	buf := window{s: st.s}
	defer buf.release()
	var d *digester // of a body longer than InlineLimit
	for idle := 0; idle < 100; idle++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("body: %w", err)
		}
		buf.fit()
		n, err := r.Read(buf.bytes)
		p := buf.bytes[:n]
		buf.read = n
		if n > 0 {
			idle = 0
			st.manifest.Size += int64(n)
			if st.manifest.Size > limit {
				return fmt.Errorf("body of more than %d bytes: %w", limit, tinycloud.ErrTooLarge)
			}
			if d == nil && st.manifest.Size > int64(st.s.o.InlineLimit) {
				d = newDigester()
				d.write(st.mem.whole)
			}
			if d != nil {
				d.write(p)
			}
			if st.file != nil {
				if err := st.s.o.Room(); err != nil {
					return err
				}
			}
			if err := st.write(p); err != nil {
				return st.s.fault(err)
			}
		}
		if err == io.EOF {
			st.seal(d)
			return nil
		}
		if err != nil {
			return fmt.Errorf("body: %w", err)
		}
	}
	return fmt.Errorf("body: %w", io.ErrNoProgress)
}

// window is the buffer that a body is read by: large while it comes in large pieces. A body that is waited for holds
// no more than it needs, whoever makes the store wait.
type window struct {
	s     *Store
	small *[slowBuffer]byte
	large *[copyBuffer]byte
	bytes []byte
	read  int // by the last Read
}

// fit takes the buffer that suits what was read last.
func (w *window) fit() {
	switch {
	case w.large == nil && w.read == slowBuffer:
		w.release()
		w.large = w.s.buffers.Get().(*[copyBuffer]byte)
		w.bytes = w.large[:]
	case w.small == nil && w.read < slowBuffer:
		w.release()
		w.small = w.s.smalls.Get().(*[slowBuffer]byte)
		w.bytes = w.small[:]
	}
}

func (w *window) release() {
	if w.small != nil {
		w.s.smalls.Put(w.small)
	}
	if w.large != nil {
		w.s.buffers.Put(w.large)
	}
	w.small, w.large, w.bytes = nil, nil, nil
}

func (st *Stage) seal(d *digester) {
	if d == nil {
		st.hash = tinycloud.Sum(st.mem.whole)
		return
	}
	st.hash, st.manifest = d.finish()
}

// write takes the next bytes of the body, in memory while it may.
func (st *Stage) write(p []byte) error {
	if st.file == nil {
		if st.hold(p) {
			return nil
		}
		if err := st.spill(); err != nil {
			return err
		}
	}
	return writeAll(st.file, p)
}

// spill moves the body from memory to a file in the final place's file system, so that the rename that
// commits it never crosses.
func (st *Stage) spill() error {
	path := st.s.staging(stagePrefix + rand.Text())
	f, err := st.s.o.FS.OpenFile(path, true)
	if err != nil {
		return err
	}
	st.file, st.path = f, path
	if len(st.mem.whole) > 0 {
		err = writeAll(f, st.mem.whole)
	}
	for rest := st.mem.size; rest > 0 && err == nil; rest -= copyBuffer {
		err = writeAll(f, st.mem.pieces[(st.mem.size-rest)/copyBuffer][:min(rest, copyBuffer)])
	}
	st.release()
	return err
}

// writeAll treats a short write as an error even when the file doesn't.
func writeAll(f File, p []byte) error {
	n, err := f.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// Hash returns the body's digest.
func (st *Stage) Hash() tinycloud.Hash { return st.hash }

// Size returns the body's size in bytes.
func (st *Stage) Size() int64 { return st.manifest.Size }

// Manifest returns the body's manifest; it has no Links when the body is its own block.
func (st *Stage) Manifest() Manifest { return st.manifest }

// Bytes returns the body and true if it is at most InlineLimit long: the caller may keep it in its own
// transaction and discard the stage. The bytes must not be changed.
func (st *Stage) Bytes() ([]byte, bool) {
	if st.ended || st.file != nil || st.mem.pieces != nil || len(st.mem.whole) > st.s.o.InlineLimit {
		return nil, false
	}
	if st.mem.whole == nil {
		return []byte{}, true
	}
	return st.mem.whole, true
}

// Open returns the staged body for reading, until the stage ends.
func (st *Stage) Open() (*Value, error) {
	switch {
	case st.ended:
		return nil, errEnded
	case st.file == nil:
		return &Value{sectionContent{io.NewSectionReader(&st.mem, 0, st.Size()), io.NopCloser(nil)}, st.Size()}, nil
	}
	return &Value{sectionContent{io.NewSectionReader(st.file, 0, st.Size()), io.NopCloser(nil)}, st.Size()}, nil
}

var errEnded = fmt.Errorf("stage was committed or discarded: %w", tinycloud.ErrInvalid)

// Commit makes the body a value of a Space and ends the stage. When it returns nil the value is on stable
// storage. An equal value that is already there is kept. After an error, of class
// [tinycloud.ErrUnavailable], the value is not there, and neither is the stage.
func (st *Stage) Commit(ctx context.Context, space tinycloud.SpaceID) error {
	if st.ended {
		return errEnded
	}
	defer st.Discard()
	defer st.s.lock(st.hash)()
	if ok, err := st.s.present(ctx, space, st.hash, st.manifest.Size); ok || err != nil {
		return err
	}
	b := &stagedBody{st: st}
	err := st.s.place(ctx, space, st.hash, st.manifest, b)
	if err == nil && b.taken {
		st.path = "" // it is the value now
	}
	return err
}

// stagedBody is the body of a stage that is being committed.
type stagedBody struct {
	st    *Stage
	taken bool
}

func (b *stagedBody) Size() int64 { return b.st.Size() }

func (b *stagedBody) ReadAt(p []byte, at int64) (int, error) {
	if b.st.file == nil {
		return b.st.mem.ReadAt(p, at)
	}
	return b.st.file.ReadAt(p, at)
}

func (b *stagedBody) file() (string, error) {
	if b.st.file == nil {
		if err := b.st.spill(); err != nil {
			return "", err
		}
	}
	b.taken = true
	return b.st.path, errors.Join(b.st.file.Sync(), b.st.file.Close())
}

// Discard drops the body. It does nothing after Commit.
func (st *Stage) Discard() {
	if st.ended {
		return
	}
	st.ended = true
	st.release()
	if st.file == nil {
		return
	}
	_ = st.file.Close() // closed already when Commit got that far
	if st.path == "" {
		return
	}
	if err := st.s.o.FS.Remove(st.path); err != nil {
		st.s.log.Warn("could not remove staged body; the next start will", "error", err)
	}
}
