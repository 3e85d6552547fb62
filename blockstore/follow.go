package blockstore

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// follower hashes a value from its beginning on while it comes, as it is in its file: of one that came in
// order only the end is left to be hashed when all is there. Its goroutine runs while there is something to
// hash.
type follower struct {
	s    *Store
	part io.ReaderAt

	mu      sync.Mutex
	to      int64         // guarded by mu; bytes that are there from the beginning on
	ended   bool          // guarded by mu
	running chan struct{} // guarded by mu; closed at the end of the goroutine, nil while there is none

	// Of the goroutine, and of others while there is none:
	at    int64 // bytes hashed
	whole *blake3.Hasher
	err   error
}

func (s *Store) follow(part io.ReaderAt) *follower {
	return &follower{s: s, part: part, whole: blake3.New()}
}

// advance says how many bytes are there from the beginning on.
func (f *follower) advance(to int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to = to
	if f.running == nil && !f.ended {
		f.running = make(chan struct{})
		go f.run(f.running)
	}
}

func (f *follower) run(done chan struct{}) {
	defer close(done)
	buf := f.s.buffers.Get().(*[copyBuffer]byte)
	defer f.s.buffers.Put(buf)
	for {
		n := f.left()
		if n == 0 {
			return
		}
		p := buf[:min(n, copyBuffer)]
		if got, err := f.part.ReadAt(p, f.at); got < len(p) {
			f.err = fmt.Errorf("reading it back at %d: %w", f.at, err)
			continue
		}
		_, _ = f.whole.Write(p) // a hasher returns no error
		f.at += int64(len(p))
	}
}

// left returns how much there is to hash. When that is nothing the goroutine counts as ended.
func (f *follower) left() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended || f.err != nil || f.at == f.to {
		f.running = nil
		return 0
	}
	return f.to - f.at
}

// sum returns the digest of what is there, when it is hashed, or ctx's error.
func (f *follower) sum(ctx context.Context) (tinycloud.Hash, error) {
	f.mu.Lock()
	running := f.running
	f.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-ctx.Done():
			return tinycloud.Hash{}, ctx.Err()
		}
	}
	if f.err != nil {
		return tinycloud.Hash{}, f.err
	}
	return digest(f.whole), nil
}

// end returns when the file is not read any more.
func (f *follower) end() {
	f.mu.Lock()
	f.ended = true
	running := f.running
	f.mu.Unlock()
	if running != nil {
		<-running
	}
}
