package transfer

import (
	"context"
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/reference"
)

// values takes the current values of a Space over.
func (o *TakeOver) values(ctx context.Context, label string, s reference.Space, out *Outcome) error {
	bar := progress.New(o.Log, label+", values", "values", 0)
	defer bar.Done()
	var hashes []tinycloud.Hash
	flush := func() error {
		err := o.someValues(ctx, s, hashes, out, bar)
		hashes = nil
		return err
	}
	err := o.From.Current(ctx, s, o.odd, func(k reference.Key) error {
		if !k.Live {
			return nil
		}
		if hashes = append(hashes, k.Value); len(hashes) == valuesAtOnce {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

func (o *TakeOver) someValues(ctx context.Context, s reference.Space, hashes []tinycloud.Hash, out *Outcome, bar *progress.Bar) error {
	to := o.To.Store.Takeover()
	held, err := to.Holds(ctx, s.ID, hashes)
	if err != nil {
		return err
	}
	var batch []capstore.TakenValue
	size := 0
	for _, h := range hashes {
		if held[h] {
			continue
		}
		held[h] = true
		v, ok, err := o.value(ctx, s, h)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		batch, size = append(batch, v), size+len(v.Inline)
		out.Values, out.Bytes = out.Values+1, out.Bytes+v.Size
		bar.Add(1, v.Size)
		if size > batchBytes {
			if err := to.Values(ctx, s.ID, batch); err != nil {
				return err
			}
			batch, size = nil, 0
		}
	}
	return to.Values(ctx, s.ID, batch)
}

// value copies a value, unless it is not there or is another.
func (o *TakeOver) value(ctx context.Context, s reference.Space, h tinycloud.Hash) (v capstore.TakenValue, ok bool, err error) {
	r, err := o.Blocks.Open(ctx, s, h)
	if errors.Is(err, tinycloud.ErrNotFound) {
		o.Odd.Add(FoundNoBlock, o.Blocks.Where(s, h))
		return v, false, nil
	}
	if err != nil {
		return v, false, err
	}
	staged, err := o.To.Blocks.Stage(ctx, r, maxValue)
	if err = errors.Join(err, r.Close()); err != nil {
		return v, false, fmt.Errorf("%s: %w", o.Blocks.Where(s, h), err)
	}
	defer staged.Discard()
	if staged.Hash() != h {
		o.Odd.Add(FoundWrongBlock, o.Blocks.Where(s, h))
		return capstore.TakenValue{Hash: h, Size: staged.Size(), Foreign: true}, true, staged.CommitAs(ctx, s.ID, h)
	}
	v = capstore.TakenValue{Hash: h, Size: staged.Size()}
	if b, small := staged.Bytes(); small {
		v.Inline = b
		return v, true, nil
	}
	return v, true, staged.Commit(ctx, s.ID)
}
