package replication

import (
	"context"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Hosts with the same history tell each other the hashes of what they made of it. Who is asked answers with what it has at
// hand, so that nobody makes another host work. Source: docs/replication.md, "Comparing content".

const (
	compareFirst = 2 * time.Minute // after a host came, less up to a half by chance: this release may be another than the last
	compareEvery = time.Hour       // likewise
)

// compareOften compares content with a peer for as long as it is connected. Older hosts refuse the question, which costs
// nothing.
func (r *Replica) compareOften(ctx context.Context, m *remote) {
	ctx, end := r.scoped(ctx, m)
	defer end()
	for pause := compareFirst; wait.For(ctx, jitter(pause)); pause = compareEvery {
		if !r.knowsServices(m) {
			continue
		}
		if err := r.compare(ctx, m); err != nil && ctx.Err() == nil {
			r.log.DebugContext(ctx, "content not compared", "peer", m.id, "error", err)
		}
	}
}

// compare tells a peer what this host made of the history, and takes what the peer made of the same.
func (r *Replica) compare(ctx context.Context, m *remote) error {
	sums, err := r.o.Store.Sums(ctx, r.space)
	if err != nil {
		return err
	}
	for len(sums) > 0 {
		page := wire.PageOfSums(sums)
		sums = sums[len(page.Sums):]
		answer, err := r.ask(ctx, m, &wire.Message{Sums: page}, wire.MaxRequest)
		if err != nil {
			return err
		}
		if answer.Sums == nil || len(answer.Sums.Sums) > len(page.Sums) {
			return fmt.Errorf("answer to sums: %w", tinycloud.ErrInvalid)
		}
		if err := r.o.Store.Compared(ctx, r.space, m.host, wire.UnpackSums(answer.Sums)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) serveSums(f *wire.Framer, asked *wire.Sums) error {
	var ours []hostlog.Sum
	for _, x := range wire.UnpackSums(asked) {
		if sum, ok := r.o.Store.SumOf(r.space, x); ok {
			ours = append(ours, sum)
		}
	}
	return f.Put(&wire.Message{Sums: wire.PageOfSums(ours)})
}
