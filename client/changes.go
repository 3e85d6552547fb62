package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// maxEvent is how many bytes of one event are read.
const maxEvent = 1 << 20

// tryAgain is the time between two streams at least: a host may end one at once.
const tryAgain = time.Second

// Change is a write that became durable at the host, wherever it was made.
type Change struct {
	ID      string              `json:"id"` // see [Space.Changes]
	Service string              `json:"service"`
	Ability string              `json:"ability"` // what was done, such as tinycloud.kv/del
	Path    string              `json:"path"`    // key
	Actor   tinycloud.Principal `json:"actor"`   // who signed
	Time    time.Time           `json:"timestamp"`
}

// Changes yields changes of the keys below a prefix as they come, until the context ends, which it yields as an error, or the host
// refuses. The session needs tinycloud.hooks/subscribe on "<Space>/hooks". It goes on over lost connections and hosts that
// restart.
//
// after is the ID of the change that was seen last: what came after it is yielded first, and nothing is missed. With "" it
// begins with what comes once it is connected; what came while a connection was lost before its first change is missed.
func (s *Space) Changes(ctx context.Context, prefix, after string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for {
			stopped, began := false, time.Now()
			err := s.stream(ctx, prefix, after, func(c Change) bool {
				after = c.ID
				stopped = !yield(c, nil)
				return !stopped
			})
			var refused *StatusError
			switch {
			case stopped:
				return
			case ctx.Err() != nil:
				yield(Change{}, ctx.Err())
				return
			case errors.As(err, &refused) && !later(refused):
				yield(Change{}, err)
				return
			}
			if !wait.For(ctx, time.Until(began.Add(tryAgain))) {
				yield(Change{}, ctx.Err())
				return
			}
		}
	}
}

// later tells whether a host that refuses may not do so soon: its history is coming, or it has too many streams.
func later(e *StatusError) bool {
	return errors.Is(e, tinycloud.ErrUnavailable) || e.Status == http.StatusTooManyRequests
}

// stream tells of changes until f has enough or the stream ends, which every one does in time.
func (s *Space) stream(ctx context.Context, prefix, after string, f func(Change) bool) error {
	ticket, err := s.ticket(ctx, prefix)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(s.Host, "/")+"/hooks/events?ticket="+url.QueryEscape(ticket), nil)
	if err != nil {
		return err
	}
	if after != "" {
		r.Header.Set("Last-Event-ID", after)
	}
	resp, err := s.client().Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
		return errors.Join(err, &StatusError{resp.StatusCode, strings.TrimSpace(string(text))})
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var c Change
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		if !f(c) {
			return nil
		}
	}
	return lines.Err()
}

// ticket is what a stream is opened with.
func (s *Space) ticket(ctx context.Context, prefix string) (string, error) {
	path := "kv"
	if prefix != "" {
		path += "/" + prefix
	}
	token, err := s.token("hooks", path, "tinycloud.hooks/subscribe")
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]any{"subscriptions": []map[string]any{{"space": s.ID.String(), "service": "kv", "pathPrefix": prefix, "abilities": []string{}}}})
	if err != nil {
		return "", err
	}
	b, _, err := s.send(ctx, http.MethodPost, "/hooks/tickets", token, map[string]string{"Content-Type": "application/json"}, body)
	if err != nil {
		return "", err
	}
	var out struct {
		Ticket string `json:"ticket"`
	}
	return out.Ticket, json.Unmarshal(b, &out)
}
