package hooks

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// Ticket opens a stream of events. Whoever has it may use it, until it ends.
type Ticket struct {
	Ticket    string `json:"ticket"`
	ExpiresAt string `json:"expiresAt"`
}

// claims are what a ticket says.
type claims struct {
	Scopes  []Scope `json:"scopes"`
	Expires int64   `json:"exp"`         // unix milliseconds
	Proofs  []byte  `json:"prf"`         // what the invocation rested on, 32 bytes each
	Nonce   string  `json:"n,omitempty"` // so that no two tickets are one
	// Token is the invocation when the ticket was given before it could be judged, else empty.
	Token string `json:"tok,omitempty"`
}

const (
	maxTicket = 96 << 10 // characters
	maxLater  = 24 << 10 // of them of an invocation that is to be judged later
	maxProofs = 64
)

// Issue makes a ticket for an admitted invocation, or for one that is to be judged later: when the stream is opened, or
// when the Spaces it waits for have their history. It ends with the invocation, or with what that rests on.
func (h *Hooks) Issue(ctx context.Context, t *capstore.Token, q TicketRequest, later bool) (Ticket, error) {
	for _, s := range q.Scopes {
		if err := permitted(t, AbilitySubscribe, s.Space, s.path()); err != nil {
			return Ticket{}, err
		}
	}
	if len(t.Proofs) > maxProofs {
		return Ticket{}, refuse("too many proofs")
	}
	ends, err := h.o.Store.Standing(ctx, t.Proofs)
	if err != nil {
		return Ticket{}, err
	}
	now := h.o.Now()
	until := earliest(now.Add(q.TTL), t.Expires, ends).Truncate(time.Millisecond)
	if !until.After(now) {
		return Ticket{}, tinycloud.Refuse(tinycloud.ErrUnauthorized, "hook ticket expired immediately")
	}
	c := claims{Scopes: q.Scopes, Expires: until.UnixMilli(), Nonce: rand.Text()}
	if later {
		if c.Token = t.Header(); len(c.Token) > maxLater {
			return Ticket{}, tinycloud.Refuse(tinycloud.ErrUnavailable, "The space is joining; retry when its history is here")
		}
	}
	for _, id := range t.Proofs {
		c.Proofs = append(c.Proofs, id[:]...)
	}
	return Ticket{Ticket: h.seal(c), ExpiresAt: formatTime(until)}, nil
}

func (c claims) proofs() (out []tinycloud.Hash) {
	for b := range slices.Chunk(c.Proofs, len(tinycloud.Hash{})) {
		out = append(out, tinycloud.Hash(b))
	}
	return out
}

// earliest returns the first of some times; zero times do not count.
func earliest(t time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if !o.IsZero() && o.Before(t) {
			t = o
		}
	}
	return t
}

func (h *Hooks) mac(text string) []byte {
	m := hmac.New(sha256.New, h.o.TicketKey[:])
	_, _ = m.Write([]byte(text)) // a hash takes everything
	return m.Sum(nil)
}

func (h *Hooks) seal(c claims) string {
	text := base64.RawURLEncoding.EncodeToString(encodeJSON(c))
	return text + "." + base64.RawURLEncoding.EncodeToString(h.mac(text))
}

// open reads a ticket of this node that has not ended.
func (h *Hooks) open(ticket string) (c claims, err error) {
	if len(ticket) > maxTicket {
		return c, tinycloud.Refuse(tinycloud.ErrUnauthorized, "invalid ticket")
	}
	text, sum, ok := strings.Cut(ticket, ".")
	given, err := base64.RawURLEncoding.Strict().DecodeString(sum)
	if !ok || err != nil || !hmac.Equal(given, h.mac(text)) {
		return c, tinycloud.Refuse(tinycloud.ErrUnauthorized, "invalid ticket")
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return c, fmt.Errorf("%v: %w", err, tinycloud.Refuse(tinycloud.ErrUnauthorized, "invalid ticket"))
	}
	if !h.o.Now().Before(time.UnixMilli(c.Expires)) {
		return c, tinycloud.Refuse(tinycloud.ErrUnauthorized, "hook ticket expired")
	}
	return c, nil
}
