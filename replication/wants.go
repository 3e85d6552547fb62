package replication

import (
	"context"
	"fmt"
	"sync"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	blockSize    = 1 << 20          // bytes of the largest value that is one block, and of a chunk
	fetchCount   = 512              // wants read at once
	fetchBytes   = 2 << 20          // bytes of one fetch
	fetchers     = 4                // fetches at once
	fetchTimeout = 15 * time.Second // of one fetch of small values, or of a manifest
	chunkGroup   = 4                // chunks of one fetch
	chunkGroups  = 3                // fetches of one value at once
	chunkStall   = 20 * time.Second // without a chunk, an assembly is left as it is
	groupTimeout = 3 * time.Minute  // of one fetch of chunks, with those before it
	wantRetry    = time.Minute      // longest wait before a value that did not come is tried again
	pastRetry    = time.Hour        // the same of one that no key holds any more
	maxBans      = 4096
	maxHints     = 16384
)

// wanted is the state of the fetching of values; what is wanted is in the store.
type wanted struct {
	wake  wait.Signal
	slots chan struct{}

	mu      sync.Mutex
	flights map[tinycloud.Hash]*flight // guarded by mu
	next    time.Time                  // guarded by mu; when the first failed want is due again
	bans    map[ban]struct{}           // guarded by mu
	hinted  map[tinycloud.Hash]source  // guarded by mu
}

// flight is one fetch of one value.
type flight struct {
	done chan struct{}
	err  error // after done
}

// ban keeps a manifest that did not give its value from being used again, and a peer that named it from
// being asked.
type ban struct {
	value, manifest tinycloud.Hash
	peer            hostlog.Key
}

func newWanted() wanted {
	return wanted{
		wake: wait.NewSignal(), slots: make(chan struct{}, fetchers),
		flights: map[tinycloud.Hash]*flight{}, bans: map[ban]struct{}{}, hinted: map[tinycloud.Hash]source{},
	}
}

// begin says whether the caller is the one to fetch a value; else it may wait for the flight.
func (w *wanted) begin(hash tinycloud.Hash) (f *flight, ours bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.flights[hash]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	w.flights[hash] = f
	return f, true
}

func (w *wanted) end(hash tinycloud.Hash, err error) {
	w.mu.Lock()
	f := w.flights[hash]
	delete(w.flights, hash)
	w.mu.Unlock()
	f.err = err
	close(f.done)
}

func (w *wanted) inFlight() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.flights)
}

func (w *wanted) retry(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next.IsZero() || at.Before(w.next) {
		w.next = at
	}
}

// idle returns how long nothing is due, as far as is known.
func (w *wanted) idle() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := wantRetry
	if !w.next.IsZero() {
		d = min(d, max(0, time.Until(w.next)))
	}
	w.next = time.Time{}
	return d
}

func (w *wanted) ban(b ban) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.bans) >= maxBans {
		clear(w.bans)
	}
	w.bans[b] = struct{}{}
}

func (w *wanted) banned(b ban) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.bans[b]
	return ok
}

// hints remembers what came beside operations of their values.
func (w *wanted) hints(from hostlog.Key, large []hostlog.Large) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range large {
		if len(w.hinted) >= maxHints {
			clear(w.hinted)
		}
		w.hinted[l.Hash] = source{peer: from, manifest: l.Manifest, size: l.Size}
	}
}

// hint returns what is said of a value, once: should it be wrong, a host is asked the next time.
func (w *wanted) hint(hash tinycloud.Hash) (source, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.hinted[hash]
	delete(w.hinted, hash)
	return s, ok
}

// fetchWants brings in what is wanted whenever there is a peer to ask.
func (r *Replica) fetchWants(ctx context.Context) error {
	idle := time.Duration(0)
	for r.wants.wake.Within(ctx, idle) {
		for r.anyAuthorised() {
			n, err := r.fetchDue(ctx)
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				r.log.WarnContext(ctx, "cannot read what values are wanted", "error", err)
				r.wants.retry(now().Add(time.Second))
			}
			if n == 0 {
				break
			}
		}
		idle = r.wants.idle()
	}
	return ctx.Err()
}

// job is a value to fetch and what is said of it.
type job struct {
	hostlog.Want
	src source
}

// fetchDue starts fetching what is due and returns how many values that are.
func (r *Replica) fetchDue(ctx context.Context) (int, error) {
	due, err := r.o.Store.Wants(ctx, r.space, fetchCount+r.wants.inFlight())
	if err != nil {
		return 0, err
	}
	var jobs []job
	for _, w := range due {
		if _, ours := r.wants.begin(w.Hash); ours {
			jobs = append(jobs, r.job(w))
		}
	}
	started := len(jobs)
	for len(jobs) > 0 {
		n := groupOf(jobs)
		if err := r.fetcher(ctx, jobs[:n:n]); err != nil {
			for _, j := range jobs[n:] {
				r.wants.end(j.Hash, err)
			}
			return 0, err
		}
		jobs = jobs[n:]
	}
	return started, nil
}

func (r *Replica) job(w hostlog.Want) job {
	j := job{Want: w, src: source{manifest: w.Manifest, size: w.Size}}
	if h, ok := r.wants.hint(w.Hash); ok && j.src.size == 0 {
		j.src = h
	}
	return j
}

// groupOf returns how many of the jobs are fetched together: one large value, or small ones.
func groupOf(jobs []job) int {
	size := int64(0)
	for i, j := range jobs {
		if j.src.size > blockSize {
			return max(i, 1)
		}
		n := j.src.size
		if n == 0 {
			n = 64 << 10 // unknown yet
		}
		if size += n; i > 0 && size > fetchBytes || i == wire.MaxLocated {
			return i
		}
	}
	return len(jobs)
}

// fetcher fetches a group of values on a goroutine of its own, when one is free. Their flights end with it.
func (r *Replica) fetcher(ctx context.Context, group []job) error {
	abandon := func(err error) error {
		for _, j := range group {
			r.wants.end(j.Hash, err)
		}
		return err
	}
	select {
	case r.wants.slots <- struct{}{}:
	case <-ctx.Done():
		return abandon(ctx.Err())
	}
	ok := r.spawn(func(ctx context.Context) {
		defer r.wants.wake.Give()
		defer func() { <-r.wants.slots }()
		r.fetchGroup(ctx, group)
	})
	if !ok {
		<-r.wants.slots
		return abandon(fmt.Errorf("too much to do: %w", tinycloud.ErrBusy))
	}
	return nil
}

// fetchGroup fetches values, records those that did not come, and ends all their flights.
func (r *Replica) fetchGroup(ctx context.Context, group []job) {
	r.fetch(ctx, group, func(j job, err error) {
		if err != nil && ctx.Err() == nil {
			r.failed(ctx, j.Want, err)
		}
		r.landed(j.Hash, err)
	})
}

// fetch fetches at most wire.MaxLocated values and calls done once for each.
func (r *Replica) fetch(ctx context.Context, group []job, done func(job, error)) {
	var small, large []job
	for _, j := range r.locateAll(ctx, group) {
		switch {
		case j.src.size < 0:
			done(j, fmt.Errorf("value %s: no connected host has it: %w", j.Hash, tinycloud.ErrUnavailable))
		case j.src.size > blockSize:
			large = append(large, j)
		default:
			small = append(small, j)
		}
	}
	for len(small) > 0 { // again, now that it is known how large they are
		n := groupOf(small)
		r.fetchSmall(ctx, small[:n], done)
		small = small[n:]
	}
	for _, j := range large {
		done(j, r.fetchLarge(ctx, j))
	}
}

func (r *Replica) landed(hash tinycloud.Hash, err error) {
	outcome := "arrived"
	if err != nil {
		outcome = "failed"
	}
	r.o.Metrics.values.WithLabelValues(outcome).Inc()
	r.wants.end(hash, err)
}

func (r *Replica) failed(ctx context.Context, w hostlog.Want, err error) {
	most := wantRetry
	if w.Past {
		most = pastRetry
	}
	wait := backoff(w.Tries+1, most)
	r.log.DebugContext(ctx, "value did not come", "value", w.Hash, "attempts", w.Tries+1, "error", err)
	if err := r.o.Store.WantFailed(ctx, r.space, w.Hash, wait); err != nil && ctx.Err() == nil {
		r.log.WarnContext(ctx, "cannot record that a value did not come", "error", err)
	}
	r.wants.retry(now().Add(wait))
}

// fetchSmall fetches values of one block. They may all be in memory before the first of them is durable.
func (r *Replica) fetchSmall(ctx context.Context, group []job, done func(job, error)) {
	wants := make(map[tinycloud.Hash]job, len(group))
	cids, said := make([]cid.Cid, 0, len(group)), int64(0)
	for _, j := range group {
		wants[j.Hash] = j
		cids = append(cids, j.Hash.CID(tinycloud.RawCodec))
		said += j.src.size
	}
	limited, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	missed := fmt.Errorf("no connected host gave it within %s: %w", fetchTimeout, tinycloud.ErrUnavailable)
	came, err := r.net.Blocks.Fetch(limited, cids)
	if err != nil {
		missed = err
		came = nil
	} else {
		came = asSaid(limited, cancel, came, said+blockSize)
	}
	for len(wants) > 0 && came != nil {
		b, ok := <-came
		if !ok {
			break
		}
		hash := tinycloud.HashOf(b.Cid())
		j, ok := wants[hash]
		if !ok || tinycloud.Sum(b.RawData()) != hash {
			continue
		}
		delete(wants, hash)
		done(j, r.keep(ctx, hash, b.RawData()))
	}
	for _, j := range wants {
		done(j, fmt.Errorf("value %s: %w", j.Hash, missed))
	}
}

// asSaid passes blocks on as they come, and ends their fetch when they are more bytes than may come: sizes are what some
// host says, and blocks wait in memory until those before them are durable.
func asSaid(ctx context.Context, cancel func(), came <-chan blocks.Block, most int64) <-chan blocks.Block {
	out := make(chan blocks.Block, wire.MaxLocated)
	go func() {
		defer close(out)
		for b := range came {
			if most -= int64(len(b.RawData())); most < 0 {
				cancel()
				return
			}
			select {
			case out <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// keep makes a value of one block durable.
func (r *Replica) keep(ctx context.Context, hash tinycloud.Hash, b []byte) error {
	if len(b) <= r.o.InlineLimit {
		return r.o.Store.Arrived(ctx, r.space, hash, int64(len(b)), append([]byte{}, b...))
	}
	if err := r.o.Values.PutValue(ctx, r.space, hash, b); err != nil {
		return err
	}
	return r.o.Store.Arrived(ctx, r.space, hash, int64(len(b)), nil)
}

// Fetch brings a value in now, for a reader who waits for it. It returns when the value is here, or with
// an error: that of ctx, or of class [tinycloud.ErrUnavailable] when no connected host gave it.
func (r *Replica) Fetch(ctx context.Context, w hostlog.Want) error {
	if !r.awaitHost(ctx) {
		return fmt.Errorf("value %s: no other host is connected: %w", w.Hash, tinycloud.ErrUnavailable)
	}
	f, ours := r.wants.begin(w.Hash)
	if !ours {
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var result error
	r.fetch(ctx, []job{r.job(w)}, func(j job, err error) {
		result = err
		r.landed(j.Hash, err)
	})
	return result
}
