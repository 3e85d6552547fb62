package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// Bounds of GET /admin/live.
const (
	liveStreams = 32
	liveSpaces  = 256 // that changed since a stream was told; of more it is told that any may have
	liveEvents  = 64  // lines of the log that wait; the eldest is left out
	livePause   = 500 * time.Millisecond
	liveBeat    = 15 * time.Second // a proxy closes what is silent
)

// ChangeView is what an event "change" of GET /admin/live says.
type ChangeView struct {
	Spaces []string `json:"spaces"` // in which something came
	All    bool     `json:"all"`    // there are more of them
}

// live tells those who look at the node that something changed.
type live struct {
	ended chan struct{} // closed when the node stops

	mu      sync.Mutex
	streams map[*liveStream]struct{} // guarded by mu
}

// liveStream is what one of them has not been told yet.
type liveStream struct {
	due wait.Signal

	mu     sync.Mutex
	spaces map[tinycloud.SpaceID]struct{} // guarded by mu
	all    bool                           // guarded by mu
	events []EventView                    // guarded by mu
	sample *Sample                        // guarded by mu
}

func newLive() *live {
	return &live{ended: make(chan struct{}), streams: map[*liveStream]struct{}{}}
}

func (l *live) open() (*liveStream, error) {
	s := &liveStream{due: wait.NewSignal(), spaces: map[tinycloud.SpaceID]struct{}{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.streams) >= liveStreams {
		return nil, fmt.Errorf("%d streams are open: %w", liveStreams, tinycloud.ErrBusy)
	}
	l.streams[s] = struct{}{}
	return s, nil
}

func (l *live) close(s *liveStream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.streams, s)
}

// each changes what the streams have not been told. It does not block. Data that are opened without a node have nobody to tell.
func (l *live) each(change func(*liveStream)) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.streams {
		s.mu.Lock()
		change(s)
		s.mu.Unlock()
		s.due.Give()
	}
}

func (l *live) space(id tinycloud.SpaceID) {
	l.each(func(s *liveStream) {
		if s.all = s.all || id.IsZero() || len(s.spaces) >= liveSpaces; !s.all {
			s.spaces[id] = struct{}{}
		}
	})
}

func (l *live) event(e EventView) {
	l.each(func(s *liveStream) {
		if len(s.events) >= liveEvents {
			s.events = s.events[1:]
		}
		s.events = append(s.events, e)
	})
}

func (l *live) sampled(x Sample) {
	l.each(func(s *liveStream) { s.sample = &x })
}

// take returns what there is to tell.
func (s *liveStream) take() (c ChangeView, events []EventView, sample *Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c = ChangeView{Spaces: []string{}, All: s.all}
	if !s.all {
		for _, id := range sorted(slices.Collect(maps.Keys(s.spaces))) {
			c.Spaces = append(c.Spaces, id.String())
		}
	}
	events, sample = s.events, s.sample
	s.spaces, s.all, s.events, s.sample = map[tinycloud.SpaceID]struct{}{}, false, nil, nil
	return c, events, sample
}

// adminLive streams what changes, as server-sent events: change, event and sample.
func (n *Node) adminLive(w http.ResponseWriter, r *http.Request) {
	s, err := n.live.open()
	if err != nil {
		sendJSON(w, adminStatus(err), adminError{tinycloud.Plain(err)})
		return
	}
	defer n.live.close(s)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
		case <-n.live.ended:
			cancel()
		}
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_ = tell(w, ctx, s) // the client has gone, or the node stops
}

func tell(w http.ResponseWriter, ctx context.Context, s *liveStream) error {
	control := http.NewResponseController(w)
	if _, err := fmt.Fprint(w, ": hello\n\n"); err != nil {
		return err
	}
	for {
		if err := control.Flush(); err != nil {
			return err
		}
		if !s.due.Within(ctx, liveBeat) {
			return ctx.Err()
		}
		if err := s.send(w); err != nil {
			return err
		}
		if !wait.For(ctx, livePause) { // what comes meanwhile is told at once
			return ctx.Err()
		}
	}
}

func (s *liveStream) send(w http.ResponseWriter) error {
	c, events, sample := s.take()
	if len(c.Spaces) == 0 && !c.All && len(events) == 0 && sample == nil {
		_, err := fmt.Fprint(w, ": beat\n\n")
		return err
	}
	if len(c.Spaces) > 0 || c.All {
		if err := sendEvent(w, "change", c); err != nil {
			return err
		}
	}
	for _, e := range events {
		if err := sendEvent(w, "event", e); err != nil {
			return err
		}
	}
	if sample == nil {
		return nil
	}
	return sendEvent(w, "sample", sample)
}

func sendEvent(w http.ResponseWriter, kind string, v any) error {
	b, err := json.Marshal(v) // without line breaks
	if err == nil {
		_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, b)
	}
	return err
}
