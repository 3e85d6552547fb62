package keys

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// jittered returns d ± 50 %.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// open begins a question.
func (k *Keeper) open(ctx context.Context, h *host) (f frames, end func(error) error, err error) {
	ctx, cancel := context.WithTimeout(ctx, questioned)
	s, err := k.o.Dial(ctx, h.id)
	if err != nil {
		cancel()
		return f, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	f = frames{wire.NewFramer(s, maxFrame, stall, k.o.Metrics.bytes)}
	return f, func(err error) error {
		stop()
		if err == nil {
			err = s.Close()
		} else {
			_ = s.Reset()
			if ctx.Err() != nil {
				err = errors.Join(err, ctx.Err())
			}
		}
		cancel()
		return err
	}, nil
}

// visit exchanges records with a host, and has the keys handed over that it holds and this node lacks. Visits that wait
// for one another are one: what began after somebody asked for it is his answer.
func (k *Keeper) visit(ctx context.Context, h *host) error {
	asked := time.Now()
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.turn }()
	k.mu.Lock()
	answered := h.answered.After(asked)
	k.mu.Unlock()
	if answered {
		return nil
	}
	began := time.Now()
	if err := k.exchange(ctx, h); err != nil {
		return err
	}
	wants, err := k.o.Store.Wants(ctx, k.o.Space, h.key)
	if err != nil {
		return err
	}
	for _, w := range wants[:min(len(wants), maxWanted)] {
		if err := k.fetch(ctx, h, w); err != nil {
			var r *tinycloud.Refusal
			if !errors.As(err, &r) {
				return err
			}
			k.o.Metrics.Handed.WithLabelValues("refused").Inc()
			k.log.InfoContext(ctx, "host hands no key of an encryption network over", "peer", h.id, "error", err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	h.answered = began
	delete(k.silent, h.key)
	return nil
}

// exchange has both sides have the records of both.
func (k *Keeper) exchange(ctx context.Context, h *host) (err error) {
	f, end, err := k.open(ctx, h)
	if err != nil {
		return err
	}
	defer func() { err = end(err) }()
	ours, err := k.o.Store.Have(ctx, k.o.Space)
	if err != nil {
		return err
	}
	if err := f.put(&message{Have: &have{IDs: ours}}); err != nil {
		return err
	}
	m, err := f.expect(func(m *message) bool { return m.Have != nil })
	if err != nil {
		return err
	}
	theirs, err := f.getRecords()
	if err != nil {
		return err
	}
	lacks, err := k.o.Store.Records(ctx, k.o.Space, m.Have.IDs)
	if err != nil {
		return err
	}
	if err := f.putRecords(lacks); err != nil {
		return err
	}
	if len(theirs) > 0 {
		news, err := k.o.Store.Accept(ctx, k.o.Space, theirs)
		if err != nil {
			return err
		}
		k.o.Metrics.Records.Add(float64(news))
	}
	_, err = f.expect(func(m *message) bool { return m.Done != nil })
	return err
}

// fetch has a key handed over.
func (k *Keeper) fetch(ctx context.Context, h *host, w hostlog.KeyWant) (err error) {
	f, end, err := k.open(ctx, h)
	if err != nil {
		return err
	}
	defer func() { err = end(err) }()
	if err := f.put(&message{Ask: &blob{Data: w.Ask()}}); err != nil {
		return err
	}
	m, err := f.expect(func(m *message) bool { return m.Given != nil })
	if err != nil {
		return err
	}
	if err := w.Take(ctx, m.Given.Data); err != nil {
		return err
	}
	k.o.Metrics.Handed.WithLabelValues("taken").Inc()
	k.log.InfoContext(ctx, "a key of an encryption network is here", "peer", h.id)
	return nil
}

// Ask visits the hosts that can be reached, and returns those that answered. The error is a refusal of class
// [tinycloud.ErrUnavailable] while one whose answer counts is silent, and not yet for the time after which that is an
// answer.
func (k *Keeper) Ask(ctx context.Context) (answered []hostlog.Key, err error) {
	hosts, err := k.o.Store.OtherHosts(ctx, k.o.Space)
	if err != nil || len(hosts) == 0 {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, questioned)
	defer cancel()
	errs := make([]error, len(hosts))
	var wg sync.WaitGroup
	for i, key := range hosts {
		wg.Go(func() { errs[i] = k.askOne(ctx, key) })
	}
	wg.Wait()
	for i, key := range hosts {
		if errs[i] == nil {
			answered = append(answered, key)
		} else if counts, failed := k.o.Store.Awaits(ctx, k.o.Space, key); failed != nil {
			return answered, failed
		} else if counts && !k.silentLong(key) {
			err = tinycloud.Refuse(tinycloud.ErrUnavailable, "Another host that may have the encryption network does not answer yet")
		}
	}
	return answered, err
}

// silentLong notes that a host does not answer, and reports whether that is an answer.
func (k *Keeper) silentLong(key hostlog.Key) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	since, known := k.silent[key]
	if !known {
		if len(k.silent) >= maxPeers {
			clear(k.silent)
		}
		since = time.Now()
		k.silent[key] = since
	}
	return time.Since(since) >= k.o.JoinTimeout
}

// overdue reports whether a host has been silent for so long that it is not waited for.
func (k *Keeper) overdue(key hostlog.Key) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	since, known := k.silent[key]
	return known && time.Since(since) >= k.o.JoinTimeout
}

func (k *Keeper) askOne(ctx context.Context, key hostlog.Key) error {
	if k.overdue(key) && k.peer(wire.PeerOf(key)) == nil {
		return errNotHere()
	}
	h, err := k.await(ctx, key)
	if err != nil {
		return err
	}
	ctx, end := h.while(ctx)
	defer end()
	return k.visit(ctx, h)
}

func errNotHere() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "The host that has the key cannot be reached now")
}

// await waits a little for a host to be connected.
func (k *Keeper) await(ctx context.Context, key hostlog.Key) (*host, error) {
	ctx, cancel := context.WithTimeout(ctx, min(connectWait, k.o.JoinTimeout/2))
	defer cancel()
	for {
		k.mu.Lock()
		h, arrival := k.peers[wire.PeerOf(key)], k.arrival
		k.mu.Unlock()
		if h != nil {
			return h, nil
		}
		select {
		case <-arrival:
		case <-ctx.Done():
			return nil, errNotHere()
		}
	}
}

// Forward has a host answer a client's request. Refusals are those of the host; that it can't be reached, or does not
// answer, is one of class [tinycloud.ErrUnavailable].
func (k *Keeper) Forward(ctx context.Context, to hostlog.Key, q hostlog.DecryptRequest) ([]byte, error) {
	if !k.forwarded.TryAcquire(1) {
		return nil, tinycloud.Refuse(tinycloud.ErrBusy, "too many requests wait for other hosts")
	}
	defer k.forwarded.Release(1)
	h, err := k.await(ctx, to)
	if err != nil {
		return nil, err
	}
	answer, err := k.ask(ctx, h, q)
	var r *tinycloud.Refusal
	if err == nil || errors.As(err, &r) {
		k.o.Metrics.Forwarded.WithLabelValues("sent").Inc()
		return answer, err
	}
	k.log.InfoContext(ctx, "host that has a key does not answer", "peer", h.id, "error", err)
	return nil, errNotHere()
}

func (k *Keeper) ask(ctx context.Context, h *host, q hostlog.DecryptRequest) (answer []byte, err error) {
	f, end, err := k.open(ctx, h)
	if err != nil {
		return nil, err
	}
	defer func() { err = end(err) }()
	if err := f.put(&message{Decrypt: &decrypt{Header: q.Header, Network: q.Network, Body: q.Body}}); err != nil {
		return nil, err
	}
	m, err := f.expect(func(m *message) bool { return m.Answer != nil })
	if err != nil {
		return nil, err
	}
	return m.Answer.Data, nil
}
