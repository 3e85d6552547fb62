package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
)

// maxPending bounds the blocks that wait for the entry they belong to.
const maxPending = hostlog.MaxBundle + 1<<20

// Imported tells what a file brought.
type Imported struct {
	Space tinycloud.SpaceID
	capstore.Taken
	Entries, New  int64
	Values, Bytes int64 // that were not here
}

// Import adds a file of [Export] to a Space, judging everything as from a peer. What it brought before an
// error is kept; importing the whole file later goes on from there.
func Import(ctx context.Context, d *node.Data, from io.Reader, log io.Writer) (out Imported, err error) {
	r, err := newCARReader(from)
	if err != nil {
		return out, err
	}
	h, _, b, err := r.block()
	if err != nil {
		return out, err
	}
	if !h.CID(tinycloud.CBORCodec).Equals(r.root) {
		return out, fmt.Errorf("not a Space that this program exported: %w", tinycloud.ErrInvalid)
	}
	if out.Space, err = decodeRoot(b); err != nil {
		return out, err
	}
	to := d.Store.Takeover()
	if err := to.Open(ctx, out.Space); err != nil {
		return out, err
	}
	i := &importer{d: d, to: to, r: r, out: &out, pending: map[tinycloud.Hash][]byte{}}
	i.bar = progress.New(log, "import", "blocks", 0)
	err = i.run(ctx)
	i.bar.Done()
	if err != nil {
		return out, err
	}
	out.Taken, err = to.End(ctx, out.Space)
	return out, err
}

type importer struct {
	d       *node.Data
	to      capstore.Takeover
	r       *carReader
	out     *Imported
	bar     *progress.Bar
	pending map[tinycloud.Hash][]byte
	size    int // of what is pending
	batch   []hostlog.Bundle
	weight  int // of the batch
}

func (i *importer) run(ctx context.Context) error {
	for {
		h, _, b, err := i.r.block()
		if err != nil {
			return errors.Join(err, i.flush(ctx))
		}
		i.bar.Add(1, int64(len(b)))
		if bytes.Equal(b, end) {
			return i.flush(ctx)
		}
		rec, ok, err := decodeRecord(b)
		switch {
		case err != nil:
		case ok && rec.sig != nil:
			err = i.entry(ctx, rec.of, *rec.sig)
		case ok:
			err = i.value(ctx, rec.of, rec.size)
		default:
			i.pending[h] = b
			if i.size += len(b); i.size > maxPending {
				err = fmt.Errorf("%d bytes that belong to no entry: %w", i.size, tinycloud.ErrInvalid)
			}
		}
		if err != nil {
			return errors.Join(err, i.flush(ctx))
		}
	}
}

func (i *importer) entry(ctx context.Context, h tinycloud.Hash, sig hostlog.Signature) error {
	get := func(h tinycloud.Hash) ([]byte, bool) { b, ok := i.pending[h]; return b, ok }
	b, err := hostlog.Assemble(i.pending[h], sig, get)
	if err != nil {
		return err
	}
	i.batch, i.weight = append(i.batch, b), i.weight+i.size
	i.pending, i.size = map[tinycloud.Hash][]byte{}, 0
	if len(i.batch) < 256 && i.weight < batchBytes {
		return nil
	}
	return i.flush(ctx)
}

func (i *importer) flush(ctx context.Context) error {
	if len(i.batch) == 0 {
		return nil
	}
	batch := i.batch
	i.batch, i.weight = nil, 0
	a, err := i.to.Apply(ctx, i.out.Space, batch)
	i.out.Entries, i.out.New = i.out.Entries+int64(a.Covered), i.out.New+int64(a.New)
	switch {
	case err != nil:
		return err
	case a.Parked:
		return fmt.Errorf("entry %d of %s is of the future: %w", batch[a.Covered].Entry.N, batch[a.Covered].Entry.Host, tinycloud.ErrUnavailable)
	case a.Covered < len(batch):
		return fmt.Errorf("entry %d of %s builds on what is not in the file: %w", batch[a.Covered].Entry.N, batch[a.Covered].Entry.Host, tinycloud.ErrInvalid)
	}
	return nil
}

// value stores a value whose blocks follow.
func (i *importer) value(ctx context.Context, h tinycloud.Hash, size int64) error {
	if err := i.flush(ctx); err != nil {
		return err
	}
	held, err := i.to.Holds(ctx, i.out.Space, []tinycloud.Hash{h})
	if err != nil {
		return err
	}
	body := &blocksReader{i: i, left: size}
	if held[h] {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	staged, err := i.d.Blocks.Stage(ctx, body, size)
	if err != nil {
		return err
	}
	defer staged.Discard()
	if staged.Hash() != h || staged.Size() != size {
		return fmt.Errorf("value %s has other bytes: %w", h, tinycloud.ErrForged)
	}
	v := capstore.TakenValue{Hash: h, Size: size}
	if b, small := staged.Bytes(); small {
		v.Inline = b
	} else if err := staged.Commit(ctx, i.out.Space); err != nil {
		return err
	}
	i.out.Values, i.out.Bytes = i.out.Values+1, i.out.Bytes+size
	return i.to.Values(ctx, i.out.Space, []capstore.TakenValue{v})
}

// blocksReader reads the blocks of one value; it lives as long as the call that made it.
type blocksReader struct {
	i    *importer
	left int64
	buf  []byte
}

func (r *blocksReader) Read(p []byte) (int, error) {
	if len(r.buf) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		_, codec, b, err := r.i.r.block()
		if err != nil {
			return 0, err
		}
		if codec != tinycloud.RawCodec || int64(len(b)) > r.left || len(b) == 0 {
			return 0, fmt.Errorf("block of %d bytes in a value with %d left: %w", len(b), r.left, tinycloud.ErrInvalid)
		}
		r.buf, r.left = b, r.left-int64(len(b))
		r.i.bar.Add(1, int64(len(b)))
	}
	n := copy(p, r.buf)
	r.buf = r.buf[n:]
	return n, nil
}
