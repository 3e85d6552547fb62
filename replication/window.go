package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	leastWindow = 3                      // batches: one that is verified, one that is made durable, one on the way
	longWindow  = 8                      // batches, once so much is durable that what may be lost is little: the other side makes several durable together
	longFrom    = 40 << 20               // bytes that are
	mostWindow  = 8 << 20                // bytes
	firstSpeed  = 8 << 20                // bytes a second that become durable, until it is known better
	firstWay    = 300 * time.Millisecond // of a round trip at most, until it is known better
	speedOver   = 2 << 20                // bytes that the speed looks back on
)

// window bounds what was sent and is not yet durable on the other side. It is as long as the way and the other side's
// speed make it worth, since what is in it is lost when the other side stops.
type window struct {
	stop chan struct{} // closed when the other side wants no more
	room wait.Signal   // there may be room again

	packer wire.Packer // of who sends

	mu    sync.Mutex
	sent  []inFlight
	bytes int           // of sent
	past  int64         // bytes that are durable
	way   time.Duration // there and back
	acked time.Time     // when the last acknowledgement came
	done  bool          // nothing more will be sent

	// What became durable of late, and the time that the other side had for it: it had none while nothing was there.
	durable float64 // bytes
	busy    float64 // seconds
}

// inFlight is a batch that was sent.
type inFlight struct {
	size int
	at   time.Time
}

// errStopped ends the reading for a stream whose other side wants no more.
var errStopped = errors.New("the peer wants no more")

// newWindow returns a window for a way there and back. It begins as if the other side were quick: from afar it would
// else wait for several ways until it is known to be.
func newWindow(way time.Duration) *window {
	const trust = 256 << 10 // bytes that the first speed counts as
	return &window{
		stop: make(chan struct{}), room: wait.NewSignal(),
		way: min(way, firstWay), durable: trust, busy: float64(trust) / firstSpeed,
	}
}

func (w *window) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// send sends a batch once there is room for it, or nothing when the other side wants no more.
func (w *window) send(ctx context.Context, f *wire.Framer, bundles []hostlog.Bundle) error {
	out, err := w.packer.Frames(bundles)
	if err != nil {
		return err
	}
	size := 0
	for _, b := range out {
		size += len(b)
	}
	for !w.add(size, time.Now()) {
		select {
		case <-w.room:
		case <-w.stop:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for _, b := range out {
		if err := f.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// add counts a batch as sent if there is room for it.
func (w *window) add(size int, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sent) > 0 && w.bytes+size > w.limit(size) {
		return false
	}
	w.sent = append(w.sent, inFlight{size, now})
	w.bytes += size
	return true
}

// limit is what may be sent with batches of a size: twice what can become durable in the time of a way lets the speed
// grow. mu is held.
func (w *window) limit(size int) int {
	least := leastWindow
	if w.past >= longFrom {
		least = longWindow
	}
	return int(min(mostWindow, float64(least*size)+2*w.durable/w.busy*w.way.Seconds()))
}

// ack counts the oldest batch as durable; it reports false when none was sent.
func (w *window) ack(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sent) == 0 {
		return false
	}
	b := w.sent[0]
	w.sent = w.sent[1:]
	w.bytes -= b.size
	w.past += int64(b.size)
	w.way = min(w.way, now.Sub(b.at))
	begin := b.at.Add(w.way) // the acknowledgement would be here, had it taken no time to make the batch durable
	if begin.Before(w.acked) {
		begin = w.acked
	}
	w.durable += float64(b.size)
	w.busy += now.Sub(begin).Seconds()
	if late := speedOver / w.durable; late < 1 {
		w.durable *= late
		w.busy *= late
	}
	w.acked = now
	w.room.Give()
	return true
}

// end says that nothing more will be sent.
func (w *window) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
}

// ended reports whether nothing more will be sent.
func (w *window) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done || w.stopped()
}

// over reports whether all is durable that was to be sent.
func (w *window) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done && len(w.sent) == 0
}

// acks reads acknowledgements until the peer closes the stream.
func (w *window) acks(f *wire.Framer) error {
	var durable uint64
	for {
		m, err := f.Get()
		if errors.Is(err, io.EOF) && w.ended() {
			return nil
		}
		if errors.Is(err, io.EOF) { // who waits for room has to hear of it
			return fmt.Errorf("the peer hung up: %w", io.ErrUnexpectedEOF)
		}
		if err != nil && w.over() {
			return nil // how the peer hangs up is its own affair
		}
		if err != nil {
			return err
		}
		if m.Have != nil && m.Have.Stop && !w.stopped() {
			close(w.stop)
			continue
		}
		if m.Ack == nil || m.Ack.Durable != durable+1 {
			return fmt.Errorf("acknowledgement: %w", tinycloud.ErrInvalid)
		}
		if !w.ack(time.Now()) {
			return fmt.Errorf("acknowledgement of what was not sent: %w", tinycloud.ErrInvalid)
		}
		durable++
	}
}
