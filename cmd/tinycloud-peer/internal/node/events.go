package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Bounds of what is kept of the log. Texts of an event may be of strangers.
const (
	eventsKept    = 512
	eventsAtOnce  = 100 // of an answer, unless fewer are asked for
	eventText     = 300 // bytes
	eventDetails  = 12
	eventNothing  = -1
	eventSpaceKey = "space"
)

// EventView is a line of the log, of level INFO or above.
type EventView struct {
	N       int64             `json:"n"` // counts all since the process began
	At      time.Time         `json:"at"`
	Level   string            `json:"level"` // INFO, WARN, ERROR
	Text    string            `json:"text"`
	Space   string            `json:"space"` // "" for none
	Details map[string]string `json:"details"`
}

// EventPage is a part of the log, the newest first.
type EventPage struct {
	Events []EventView `json:"events"`
	Before int64       `json:"before"` // to ask for what was earlier; 0: nothing that is kept
}

// recent is the end of the log, in memory.
type recent struct {
	mu    sync.Mutex
	last  int64                  // guarded by mu; number of the newest
	ring  [eventsKept]*EventView // guarded by mu; an event is at its number modulo the length
	added func(EventView)        // set before the first; it does not block
}

func (r *recent) add(e EventView) {
	r.mu.Lock()
	r.last++
	e.N = r.last
	r.ring[e.N%eventsKept] = &e
	r.mu.Unlock()
	if r.added != nil {
		r.added(e)
	}
}

// page returns those before a number, eventNothing for all, that keep accepts.
func (r *recent) page(before int64, limit int, keep func(*EventView) bool) EventPage {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := EventPage{Events: []EventView{}}
	if before == eventNothing || before > r.last+1 {
		before = r.last + 1
	}
	for n := before - 1; n > 0 && n > r.last-eventsKept; n-- {
		e := r.ring[n%eventsKept]
		if !keep(e) {
			continue
		}
		if len(p.Events) == limit {
			p.Before = p.Events[limit-1].N
			break
		}
		p.Events = append(p.Events, *e)
	}
	return p
}

// recorder keeps what is logged, whatever of it is written.
type recorder struct {
	slog.Handler
	recent *recent
	attrs  []slog.Attr
	group  string
}

// Enabled says that lines of INFO or above are made.
func (h recorder) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || h.Handler.Enabled(ctx, l)
}

// Handle keeps a line and hands it on.
func (h recorder) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		h.recent.add(h.event(r))
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h recorder) event(r slog.Record) EventView {
	e := EventView{At: r.Time.UTC().Truncate(time.Millisecond), Level: r.Level.String(), Text: clip(r.Message), Details: map[string]string{}}
	for _, a := range h.attrs {
		e.detail("", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		e.detail(h.group, a)
		return true
	})
	return e
}

func (e *EventView) detail(group string, a slog.Attr) {
	text := clip(a.Value.Resolve().String())
	switch {
	case a.Key == eventSpaceKey && group == "":
		e.Space = text
	case len(e.Details) < eventDetails && text != "":
		e.Details[group+clip(a.Key)] = text
	}
}

func clip(text string) string {
	if len(text) <= eventText {
		return text
	}
	return text[:eventText] + "…"
}

// WithAttrs keeps attributes for the lines that follow.
func (h recorder) WithAttrs(attrs []slog.Attr) slog.Handler {
	all := append([]slog.Attr{}, h.attrs...)
	for _, a := range attrs {
		all = append(all, slog.Attr{Key: h.group + a.Key, Value: a.Value})
	}
	return recorder{h.Handler.WithAttrs(attrs), h.recent, all, h.group}
}

// WithGroup names what follows.
func (h recorder) WithGroup(name string) slog.Handler {
	return recorder{h.Handler.WithGroup(name), h.recent, h.attrs, h.group + name + "."}
}

// adminEvents answers with the end of the log: ?before= a number, ?limit=, ?space=, ?level=WARN.
func (n *Node) adminEvents(r *http.Request) (int, any, error) {
	q := r.URL.Query()
	limit, err := limitOf(r, eventsAtOnce, eventsKept)
	if err != nil {
		return 0, nil, err
	}
	before := int64(eventNothing)
	if text := q.Get("before"); text != "" {
		if before, err = strconv.ParseInt(text, 10, 64); err != nil || before < 1 {
			return 0, nil, fmt.Errorf("before: %q is no number of an event: %w", text, tinycloud.ErrInvalid)
		}
	}
	least := slog.LevelInfo
	if text := q.Get("level"); text != "" {
		if err := least.UnmarshalText([]byte(text)); err != nil {
			return 0, nil, fmt.Errorf("level: %q is not one of INFO, WARN, ERROR: %w", text, tinycloud.ErrInvalid)
		}
	}
	space := q.Get("space")
	return http.StatusOK, n.recent.page(before, limit, func(e *EventView) bool {
		var l slog.Level
		return (space == "" || e.Space == space) && l.UnmarshalText([]byte(e.Level)) == nil && l >= least
	}), nil
}

// limitOf reads ?limit=.
func limitOf(r *http.Request, usual, most int) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return usual, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > most {
		return 0, fmt.Errorf("limit: %q, expected 1 to %d: %w", text, most, tinycloud.ErrInvalid)
	}
	return limit, nil
}
