package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// A source of shares says of each range that it sent all of it. When ranges do not fit together, or do not make up the
// goal, somebody left something out. Who that was shows once the goal is here: its history has entries in a range of a
// source that the source did not send. Forked logs are left out of account: a source that has another branch than the
// goal takes it for an earlier part of the goal.

const (
	maxReceipts = 8       // sharings
	maxGiven    = 1 << 14 // ranges of a sharing
)

// receipt is what the sources of a sharing that failed said and sent.
type receipt struct {
	have, goal  []hostlog.Tip
	at          time.Time
	lead        hostlog.Key
	first, last int64 // seqs that the goal takes, says the lead

	given   []given // guarded by Replica.mu once it is kept
	checked bool    // what the lead said; guarded by Replica.mu
}

// given is a range of seqs, both included, and what a source sent of it.
type given struct {
	by          hostlog.Key
	first, last int64
	sent        map[hostlog.Key][]run
}

// run are entries of a log by their numbers, both included.
type run struct{ from, to uint64 }

func givenBy(p *portion) given {
	g := given{by: p.of.m.host, first: p.first, last: p.last, sent: map[hostlog.Key][]run{}}
	for _, batch := range p.batches {
		for i := range batch.bundles {
			e := &batch.bundles[i].Entry
			runs := g.sent[e.Host]
			if k := len(runs) - 1; k >= 0 && e.N == runs[k].to+1 {
				runs[k].to = e.N
				continue
			}
			g.sent[e.Host] = append(runs, run{e.N, e.N})
		}
	}
	return g
}

func (g *given) has(host hostlog.Key, n uint64) bool {
	for _, r := range g.sent[host] {
		if n >= r.from && n <= r.to {
			return true
		}
	}
	return false
}

func (c *receipt) add(p *portion) {
	if len(c.given) < maxGiven {
		c.given = append(c.given, givenBy(p))
	}
}

// giver returns who gave what is at a seq.
func (c *receipt) giver(seq int64) (host hostlog.Key, ok bool) {
	for _, g := range c.given {
		if seq >= g.first && seq <= g.last {
			return g.by, true
		}
	}
	return host, false
}

// keepReceipts remembers receipts until their goal is here.
func (r *Replica) keepReceipts(receipts []*receipt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.receipts = append(r.receipts, receipts...)
	r.receipts = r.receipts[max(0, len(r.receipts)-maxReceipts):]
}

// settle looks through the receipts of a peer of whose tips all are here. What it left out is one offence, however often
// it had to be asked.
func (r *Replica) settle(ctx context.Context, m *remote) {
	var offence error
	for _, c := range r.receiptsOf(m.host) {
		done, err := r.check(ctx, c)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, tinycloud.ErrInvalid):
			offence = err
		case err != nil:
			r.log.WarnContext(ctx, "cannot check what was shared", "peer", m.id, "error", err)
		}
		if done {
			r.drop(c, m.host)
		}
	}
	if offence != nil {
		r.offended(ctx, m, "sync", offence)
	}
}

// statement is a receipt as far as it is one source's.
type statement struct {
	*receipt
	given []given
	led   bool
}

func (r *Replica) receiptsOf(host hostlog.Key) (out []statement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.receipts = slices.DeleteFunc(r.receipts, func(c *receipt) bool { return time.Since(c.at) > offenceLife })
	for _, c := range r.receipts {
		x := statement{receipt: c, led: c.lead == host && !c.checked}
		for _, g := range c.given {
			if g.by == host {
				x.given = append(x.given, g)
			}
		}
		if x.led || len(x.given) > 0 {
			out = append(out, x)
		}
	}
	return out
}

// drop ends what a source has to do with a receipt.
func (r *Replica) drop(c statement, host hostlog.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.checked = c.checked || c.led
	c.receipt.given = slices.DeleteFunc(c.receipt.given, func(g given) bool { return g.by == host })
}

// check compares a statement with the history once the goal is here: done. The error is of class [tinycloud.ErrInvalid]
// when something was left out.
func (r *Replica) check(ctx context.Context, c statement) (done bool, err error) {
	tips, held, err := r.o.Store.Have(ctx, r.space, c.goal)
	if err != nil || held || lacks(c.goal, tips) {
		return false, own(err)
	}
	all, err := r.o.Store.Share(ctx, r.space, c.have, c.goal)
	if err != nil {
		return true, own(err)
	}
	first, last := all.Span()
	if first > last {
		return true, nil
	}
	if c.led && (c.first > first || c.last < last) {
		return true, fmt.Errorf("span from %d to %d for one from %d to %d: %w", c.first, c.last, first, last, tinycloud.ErrInvalid)
	}
	for _, g := range c.given {
		var missed error
		err := all.Places(ctx, g.first, g.last, func(host hostlog.Key, n uint64) {
			if missed == nil && !g.has(host, n) {
				missed = fmt.Errorf("range from %d to %d without entry %d of %s: %w", g.first, g.last, n, host, tinycloud.ErrInvalid)
			}
		})
		if err != nil || missed != nil {
			return true, errors.Join(own(err), missed)
		}
	}
	return true, nil
}
