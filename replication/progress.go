package replication

import (
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// CatchUp is how far a Space is that a stream is catching up.
type CatchUp struct {
	Entries   int64         // log entries that came
	Total     int64         // with those to come, by what the peer said it has
	PerSecond float64       // of late
	Left      time.Duration // at that rate; 0: not known
}

const (
	rateOver   = 5 * time.Second  // least time that a rate looks back on, at most twice that
	samePause  = 30 * time.Second // between streams that are shown as one
	maxLeft    = 1e6              // seconds; beyond, nobody knows
	maxEntries = 1 << 40          // of a host, whatever a peer says
)

// progress counts what streams of catching up bring.
type progress struct {
	running        bool
	entries, total int64
	ended          time.Time // of the last stream
	old, recent    mark
}

// mark is a number of entries at a time.
type mark struct {
	at      time.Time
	entries int64
}

// begin says that a stream will bring a number of entries.
func (p *progress) begin(now time.Time, missing int64) {
	if p.ended.IsZero() || now.Sub(p.ended) > samePause {
		*p = progress{old: mark{at: now}, recent: mark{at: now}}
	}
	p.running, p.total = true, p.entries+missing
}

// add notes entries that are durable now.
func (p *progress) add(now time.Time, n int) {
	if !p.running {
		return
	}
	p.entries += int64(n)
	p.total = max(p.total, p.entries)
	if now.Sub(p.recent.at) >= rateOver {
		p.old, p.recent = p.recent, mark{now, p.entries}
	}
}

func (p *progress) end(now time.Time) { p.running, p.ended = false, now }

// view returns what to show, nil while no stream runs.
func (p *progress) view(now time.Time) *CatchUp {
	if !p.running {
		return nil
	}
	c := &CatchUp{Entries: p.entries, Total: p.total}
	if spent := now.Sub(p.old.at).Seconds(); spent > 0 {
		c.PerSecond = float64(p.entries-p.old.entries) / spent
	}
	if c.PerSecond > 0 {
		if left := float64(c.Total-c.Entries) / c.PerSecond; left < maxLeft {
			c.Left = time.Duration(left * float64(time.Second))
		}
	}
	return c
}

// lacking estimates how many entries a peer will send: per host, the numbers beyond the greatest one that is here.
// What is common to branches of a fork is not known before it comes.
func lacking(theirs, have, ours []hostlog.Tip) (n int64) {
	next := map[hostlog.Key]uint64{}
	for _, tips := range [][]hostlog.Tip{ours, have} {
		for _, t := range tips {
			next[t.Host] = max(next[t.Host], t.N+1)
		}
	}
	for _, t := range theirs {
		if from := next[t.Host]; t.N >= from && t.N < maxEntries {
			n += int64(t.N - from + 1)
			next[t.Host] = t.N + 1
		}
	}
	return n
}

func (r *Replica) expect(missing int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.caught.begin(time.Now(), missing)
}

func (r *Replica) advance(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.caught.add(time.Now(), n)
}

func (r *Replica) expected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.caught.end(time.Now())
}
