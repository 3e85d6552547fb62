package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/fluent/qp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
)

// The file is a CARv1 (BLAKE3, CIDv1). Its root is the first block; then come the log entries, parents first,
// each as its blocks and a list [entry, signature]; then the current values, each as a list [value, size] and
// the value in raw blocks of at most 1 MiB; and at last a list of nothing.
const (
	carVersion = 1
	chunkSize  = 1 << 20
)

// Exported tells what a file holds.
type Exported struct {
	Entries, Values, Bytes int64
	Skipped                int64 // current values that are not here
}

// Export writes a hosted Space as a CARv1, in memory that does not grow with it.
func Export(ctx context.Context, d *node.Data, space tinycloud.SpaceID, to, log io.Writer) (out Exported, err error) {
	if !d.Store.Hosted(space) {
		return out, fmt.Errorf("space %s is not hosted here: %w", space, tinycloud.ErrNotFound)
	}
	head, err := encodeRoot(space)
	if err != nil {
		return out, err
	}
	w, err := newCARWriter(to, tinycloud.Sum(head).CID(tinycloud.CBORCodec))
	if err != nil {
		return out, err
	}
	if _, err := w.block(tinycloud.CBORCodec, head); err != nil {
		return out, err
	}
	x := &exporter{d: d, space: space, w: w, out: &out}
	x.bar = progress.New(log, "history", "entries", 0)
	err = d.Store.Missing(ctx, space, nil, 0, x.entry)
	x.bar.Done()
	if err != nil {
		return out, err
	}
	x.bar = progress.New(log, "values", "values", 0)
	err = x.values(ctx)
	x.bar.Done()
	if err != nil {
		return out, err
	}
	_, err = w.block(tinycloud.CBORCodec, end)
	out.Bytes = w.n
	return out, errors.Join(err, w.w.Flush())
}

type exporter struct {
	d     *node.Data
	space tinycloud.SpaceID
	w     *carWriter
	out   *Exported
	bar   *progress.Bar
}

func (x *exporter) entry(b hostlog.Bundle) error {
	before := x.w.n
	var last cid.Cid
	err := b.Blocks(func(codec uint64, block []byte) (err error) {
		last, err = x.w.block(codec, block)
		return err
	})
	if err != nil {
		return err
	}
	signed, err := encodeRecord(last, qp.Bytes(b.Sig[:]))
	if err != nil {
		return err
	}
	_, err = x.w.block(tinycloud.CBORCodec, signed)
	x.out.Entries++
	x.bar.Add(1, x.w.n-before)
	return err
}

// values reads a page of hashes at a time, so that the database is not held while bytes are written.
func (x *exporter) values(ctx context.Context) error {
	type item struct {
		hash tinycloud.Hash
		size int64
	}
	var all []item // 40 bytes each
	err := x.d.Store.CurrentValues(ctx, x.space, func(h tinycloud.Hash, size int64) error {
		all = append(all, item{h, size})
		return nil
	})
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := x.value(ctx, v.hash, v.size); err != nil {
			return err
		}
	}
	st, err := x.d.Store.Status(ctx, x.space)
	x.out.Skipped = st.Wants
	return err
}

func (x *exporter) value(ctx context.Context, h tinycloud.Hash, size int64) error {
	v, err := x.d.Store.Value(ctx, x.space, h)
	if err != nil {
		return err
	}
	defer v.Close()
	head, err := encodeRecord(h.CID(tinycloud.RawCodec), qp.Int(size))
	if err != nil {
		return err
	}
	if _, err := x.w.block(tinycloud.CBORCodec, head); err != nil {
		return err
	}
	buf := make([]byte, min(size, chunkSize))
	for left := size; left > 0; left -= int64(len(buf)) {
		buf = buf[:min(left, chunkSize)]
		if _, err := io.ReadFull(v, buf); err != nil {
			return fmt.Errorf("value %s: %w", h, err)
		}
		if _, err := x.w.block(tinycloud.RawCodec, buf); err != nil {
			return err
		}
	}
	x.out.Values++
	x.bar.Add(1, size)
	return ctx.Err()
}
