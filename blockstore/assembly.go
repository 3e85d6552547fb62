package blockstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// syncEvery is after how many chunks an fsync begins. Power loss may take twice as many from an assembly: those that
// are being synced, and those that came meanwhile. A variable for tests alone.
var syncEvery = 64

type partKey struct {
	space tinycloud.SpaceID
	value tinycloud.Hash
}

// name is the same for all manifests of a value: what another one brought is dropped.
func (k partKey) name() string {
	return tinycloud.Sum(append([]byte(k.space.String()+"\x00"), k.value[:]...)).String()
}

// Assembly puts a value together from its chunks, which may come in any order. What has come survives a
// restart. Its methods are called by one goroutine at a time; beside them the whole is hashed and synced as far as it
// is there. It ends with Finish, Discard or Close.
//
// On disk it is a sparse file as long as the value, and beside it the manifest block with its length before
// it, then one bit for each chunk. A bit is a hint: it may have reached the disk before the chunk did, so
// what it says is hashed when the assembly is taken up again.
type Assembly struct {
	s        *Store
	key      partKey
	manifest Manifest
	part     File
	bits     File
	have     []byte // the bitmap
	haveAt   int64  // its place in bits
	missing  int
	unsynced int
	syncing  chan error // the result of the fsync under way, nil when there is none
	there    int        // chunks that are there from the beginning on
	hash     *follower  // of these
	ended    bool
}

// Assemble begins or takes up the assembly of a value longer than [ChunkSize]. Nobody vouches for the
// manifest before Finish. The error is of class [tinycloud.ErrInvalid] for a manifest that no value can
// have, [tinycloud.ErrConflict] while the value is being assembled already, or [tinycloud.ErrUnavailable].
func (s *Store) Assemble(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash, m Manifest) (*Assembly, error) {
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("value %s: %w", value, err)
	}
	if err := errors.Join(s.values.check(space), s.o.Room()); err != nil {
		return nil, err
	}
	a := &Assembly{s: s, key: partKey{space, value}, manifest: m, missing: len(m.Links)}
	a.have = make([]byte, (len(m.Links)+7)/8)
	a.haveAt = int64(4 + len(m.Encode()))
	s.mu.Lock()
	_, busy := s.assembling[a.key]
	s.assembling[a.key] = struct{}{}
	s.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("value %s is being assembled: %w", value, tinycloud.ErrConflict)
	}
	err := a.resume(ctx)
	if errors.Is(err, errNoPart) {
		if err := a.create(); err != nil {
			return nil, s.fault(errors.Join(err, a.Discard()))
		}
	} else if err != nil {
		return nil, s.fault(errors.Join(err, a.Close()))
	}
	a.hash = s.follow(a.part)
	a.advance()
	return a, nil
}

// Partial returns the manifest of an assembly that was begun and not ended by Finish or Discard.
func (s *Store) Partial(space tinycloud.SpaceID, value tinycloud.Hash) (Manifest, bool) {
	m, _, err := s.readBits(partKey{space, value})
	return m, err == nil
}

var errNoPart = errors.New("no assembly to take up")

// readBits reads what is beside a part. Its length is bounded by that of a manifest block.
func (s *Store) readBits(key partKey) (Manifest, []byte, error) {
	f, err := os.Open(s.staging(key.name() + mapSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, nil, errNoPart
	}
	if err != nil {
		return Manifest{}, nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4+ChunkSize+MaxLinks/8+1))
	if err != nil {
		return Manifest{}, nil, err
	}
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return Manifest{}, nil, errNoPart // it was being written
	}
	block, bits := b[4:4+binary.BigEndian.Uint32(b)], b[4+binary.BigEndian.Uint32(b):]
	m, err := DecodeManifest(block)
	if err != nil || len(bits) != (len(m.Links)+7)/8 {
		return Manifest{}, nil, errNoPart
	}
	return m, bits, nil
}

// resume opens the files of an earlier process and hashes the chunks they say are there.
func (a *Assembly) resume(ctx context.Context) error {
	m, bits, err := a.s.readBits(a.key)
	if err != nil {
		return err
	}
	if m.CID() != a.manifest.CID() {
		return errNoPart
	}
	a.part, err = a.s.o.FS.OpenFile(a.s.staging(a.key.name()+partSuffix), false)
	if errors.Is(err, fs.ErrNotExist) {
		return errNoPart
	}
	if err != nil {
		return err
	}
	if a.bits, err = a.s.o.FS.OpenFile(a.s.staging(a.key.name()+mapSuffix), false); err != nil {
		return err
	}
	buf := make([]byte, ChunkSize)
	for i, link := range m.Links {
		if bits[i/8]>>(i%8)&1 == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk := buf[:m.length(i)]
		if _, err := a.part.ReadAt(chunk, int64(i)*ChunkSize); err != nil || tinycloud.Sum(chunk) != link {
			continue
		}
		a.mark(i)
	}
	return nil
}

// create begins anew. The bitmap's file is written at once in full, so that one of the right length is
// whole.
func (a *Assembly) create() error {
	a.release()
	if err := a.remove(); err != nil {
		return err
	}
	var err error
	if a.part, err = a.s.o.FS.OpenFile(a.s.staging(a.key.name()+partSuffix), true); err != nil {
		return err
	}
	if a.bits, err = a.s.o.FS.OpenFile(a.s.staging(a.key.name()+mapSuffix), true); err != nil {
		return err
	}
	block := a.manifest.Encode()
	head := append(binary.BigEndian.AppendUint32(nil, uint32(len(block))), block...)
	return writeAll(a.bits, append(head, a.have...))
}

func (a *Assembly) has(i int) bool { return a.have[i/8]>>(i%8)&1 == 1 }

func (a *Assembly) mark(i int) {
	a.have[i/8] |= 1 << (i % 8)
	a.missing--
}

// advance has those chunks hashed before which none is missing.
func (a *Assembly) advance() {
	before := a.there
	for a.there < len(a.manifest.Links) && a.has(a.there) {
		a.there++
	}
	if a.there > before {
		a.hash.advance(min(int64(a.there)*ChunkSize, a.manifest.Size))
	}
}

// Missing returns the chunks that are still to come, each once, in the order of the value.
func (a *Assembly) Missing() []tinycloud.Hash {
	var missing []tinycloud.Hash
	seen := make(map[tinycloud.Hash]struct{}, a.missing)
	for i, link := range a.manifest.Links {
		if _, twice := seen[link]; a.has(i) || twice {
			continue
		}
		seen[link] = struct{}{}
		missing = append(missing, link)
	}
	return missing
}

// PutChunk adds a chunk everywhere the manifest lists it; one that is there already is no error. The error
// is of class [tinycloud.ErrForged] if the bytes are not the chunk's or the manifest contradicts their
// length, [tinycloud.ErrInvalid] if it doesn't list the chunk, or [tinycloud.ErrUnavailable].
func (a *Assembly) PutChunk(chunk tinycloud.Hash, b []byte) error {
	if a.ended {
		return errAssembled
	}
	if err := a.s.o.Room(); err != nil {
		return err
	}
	if len(b) > ChunkSize || tinycloud.Sum(b) != chunk {
		return fmt.Errorf("chunk %s: other bytes: %w", chunk, tinycloud.ErrForged)
	}
	listed := false
	for i, link := range a.manifest.Links {
		if link != chunk {
			continue
		}
		listed = true
		if len(b) != a.manifest.length(i) {
			return fmt.Errorf("chunk %s: %d bytes where the manifest has %d: %w", chunk, len(b), a.manifest.length(i), tinycloud.ErrForged)
		}
		if a.has(i) {
			continue
		}
		if err := a.write(i, b); err != nil {
			return a.s.fault(err)
		}
	}
	if !listed {
		return fmt.Errorf("chunk %s is not of value %s: %w", chunk, a.key.value, tinycloud.ErrInvalid)
	}
	a.advance()
	if a.unsynced < syncEvery {
		return nil
	}
	return a.sync()
}

// sync begins to make durable what has come, when the time before it is done. What comes next need not wait.
func (a *Assembly) sync() error {
	if err := a.synced(); err != nil {
		return err
	}
	a.unsynced = 0
	done, part := make(chan error, 1), a.part
	a.syncing = done
	go func() { done <- part.Sync() }()
	return nil
}

// synced waits for the end of an fsync. After one that failed the kernel may hold for clean what it never
// wrote, so reading it back proves nothing, and nor does the next fsync: all of it has to come again.
func (a *Assembly) synced() error {
	if err := a.await(); err != nil {
		return a.s.fault(errors.Join(err, a.Discard()))
	}
	return nil
}

func (a *Assembly) await() error {
	if a.syncing == nil {
		return nil
	}
	err := <-a.syncing
	a.syncing = nil
	return err
}

// write puts a chunk in its place and then its bit, so that after a kill the bit is never ahead.
func (a *Assembly) write(i int, b []byte) error {
	if err := writeAllAt(a.part, b, int64(i)*ChunkSize); err != nil {
		return err
	}
	a.mark(i)
	a.unsynced++
	return writeAllAt(a.bits, a.have[i/8:i/8+1], a.haveAt+int64(i/8))
}

func writeAllAt(f File, p []byte, at int64) error {
	n, err := f.WriteAt(p, at)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

var errAssembled = fmt.Errorf("assembly has ended: %w", tinycloud.ErrInvalid)

// Finish makes the complete value one of the Space, durable when it returns nil. If the whole has another
// digest, the manifest lied: the assembly is discarded and the error of class [tinycloud.ErrForged]. With
// chunks missing it is of class [tinycloud.ErrInvalid]; with [tinycloud.ErrUnavailable] it may be tried
// again by a new Assemble.
func (a *Assembly) Finish(ctx context.Context) error {
	if a.ended {
		return errAssembled
	}
	if a.missing > 0 {
		return fmt.Errorf("value %s: %d chunks missing: %w", a.key.value, a.missing, tinycloud.ErrInvalid)
	}
	if err := a.sync(); err != nil {
		return err
	}
	got, err := a.hash.sum(ctx) // beside the fsync
	if err != nil {
		return a.s.fault(errors.Join(err, a.Close()))
	}
	if got != a.key.value {
		err := fmt.Errorf("value %s: its manifest gives %s: %w", a.key.value, got, tinycloud.ErrForged)
		return errors.Join(err, a.Discard())
	}
	if err := a.synced(); err != nil {
		return err
	}
	defer a.s.lock(a.key.value)()
	err = a.s.place(ctx, a.key.space, a.key.value, a.manifest, assembledBody{a})
	if err != nil {
		return errors.Join(err, a.Close())
	}
	if err := a.Discard(); err != nil { // the value is there all the same
		a.s.log.WarnContext(ctx, "could not remove what an assembly left", "error", err)
	}
	return nil
}

// assembledBody is the complete part, which was synced.
type assembledBody struct{ a *Assembly }

func (b assembledBody) Size() int64 { return b.a.manifest.Size }

func (b assembledBody) ReadAt(p []byte, at int64) (int, error) { return b.a.part.ReadAt(p, at) }

func (b assembledBody) file() (string, error) { return b.a.s.staging(b.a.key.name() + partSuffix), nil }

// Close ends the assembly and keeps what has come, but for what could not be synced.
func (a *Assembly) Close() error {
	if a.ended {
		return nil
	}
	if err := a.synced(); err != nil {
		return err
	}
	a.ended = true
	err := a.release()
	a.s.mu.Lock()
	delete(a.s.assembling, a.key)
	a.s.mu.Unlock()
	return err
}

// release ends all use of the files. What came of an fsync does not matter any more.
func (a *Assembly) release() error {
	_ = a.await()
	if a.hash != nil {
		a.hash.end()
	}
	var err error
	for _, f := range []File{a.part, a.bits} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	a.part, a.bits = nil, nil
	return err
}

// Discard ends the assembly and removes what has come.
func (a *Assembly) Discard() error {
	if a.ended {
		return nil
	}
	a.ended = true
	err := errors.Join(a.release(), a.remove())
	a.s.mu.Lock()
	delete(a.s.assembling, a.key)
	a.s.mu.Unlock()
	if err != nil {
		return a.s.fault(err)
	}
	return nil
}

// remove removes the files. The bitmap goes first: without it the part means nothing.
func (a *Assembly) remove() error {
	for _, suffix := range []string{mapSuffix, partSuffix} {
		err := a.s.o.FS.Remove(a.s.staging(a.key.name() + suffix))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
