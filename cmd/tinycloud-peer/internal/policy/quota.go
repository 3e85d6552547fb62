package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// How long an answer of a quota service is fresh, and how long it is left alone after a failure.
const (
	quotaFresh   = 60 * time.Second
	quotaBackOff = 30 * time.Second
)

// Quota asks a service how many bytes a Space may hold (docs/protocol.md, "Quota"). A service that fails restricts
// nobody: what it last said goes on to hold.
type Quota struct{ *asker[quota] }

// quota is what is remembered of a Space.
type quota struct {
	known  bool
	limit  int64     // bytes, if known
	asked  time.Time // when the limit was last learned
	failed time.Time // of the last question, if it failed
}

// NewQuota returns the client of a quota service. The caller closes it.
func NewQuota(o Options) *Quota {
	q := &Quota{newAsker[quota](o)}
	q.find = q.ask
	return q
}

// Limit returns what is known of a Space now, also when it is no longer fresh. It doesn't block.
func (q *Quota) Limit(space tinycloud.SpaceID) (bytes int64, ok bool) {
	have, _ := q.known.Get(space)
	return have.limit, have.known
}

// Warm sees to it that Limit knows a Space. It waits, for some seconds at most, only if nothing is known and the
// service didn't fail just now; what is no longer fresh is asked for anew behind the caller's back.
func (q *Quota) Warm(ctx context.Context, space tinycloud.SpaceID) {
	have, _ := q.known.Get(space)
	now := q.o.Now()
	if have.known && now.Sub(have.asked) < quotaFresh || !have.failed.IsZero() && now.Sub(have.failed) < quotaBackOff {
		return
	}
	done := q.begin(ctx, space)
	if have.known {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (q *Quota) ask(ctx context.Context, space tinycloud.SpaceID) quota {
	limit, err := q.fetch(ctx, space)
	now := q.o.Now()
	if err == nil {
		return quota{known: true, limit: limit, asked: now}
	}
	q.o.Log.WarnContext(ctx, "quota service gives no limit, trying again", "space", space, "error", err)
	have, _ := q.known.Get(space)
	have.failed = now
	return have
}

func (q *Quota) fetch(ctx context.Context, space tinycloud.SpaceID) (int64, error) {
	resp, err := q.get(ctx, strings.TrimRight(q.o.URL, "/")+"/api/quota/"+percentEncode(space.String()))
	if err != nil {
		return 0, err
	}
	if resp.status != http.StatusOK {
		return 0, fmt.Errorf("status %d", resp.status)
	}
	return parseQuota(resp.body)
}

func parseQuota(body []byte) (int64, error) {
	var answer struct {
		Limit *int64 `json:"storage_limit_bytes"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, err
	}
	if answer.Limit == nil || *answer.Limit < 0 {
		return 0, errors.New("no storage_limit_bytes")
	}
	return *answer.Limit, nil
}

// percentEncode encodes the colons of an id too, as SDKs do and url.PathEscape doesn't.
func percentEncode(id string) string { return strings.ReplaceAll(url.QueryEscape(id), "+", "%20") }
