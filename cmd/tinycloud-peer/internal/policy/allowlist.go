package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"
	"github.com/multiformats/go-multihash"
	"golang.org/x/crypto/blake2b"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// How long an answer of an allow list holds.
const (
	allowedFor     = 60 * time.Second
	deniedFor      = 10 * time.Second
	unreachableFor = time.Second // so that a crowd doesn't hold up everyone while the list is down
)

// Allowlist asks a service which Spaces may be hosted here (docs/protocol.md, "Allow list").
type Allowlist struct{ *asker[permission] }

// permission is what is remembered of a Space.
type permission struct {
	err   error // nil: allowed
	until time.Time
}

// NewAllowlist returns the client of an allow list. The caller closes it.
func NewAllowlist(o Options) *Allowlist {
	l := &Allowlist{newAsker[permission](o)}
	l.find = l.ask
	return l
}

// Allow returns nil if the list names the Space. A refusal is of class [tinycloud.ErrForbidden] when the list
// answered otherwise, and of class [tinycloud.ErrUnavailable] when it could not be asked.
func (l *Allowlist) Allow(ctx context.Context, space tinycloud.SpaceID) error {
	if p, ok := l.known.Get(space); ok && l.o.Now().Before(p.until) {
		return p.err
	}
	select {
	case <-l.begin(ctx, space):
	case <-ctx.Done():
		return ctx.Err()
	}
	if p, ok := l.known.Get(space); ok && l.o.Now().Before(p.until) {
		return p.err
	}
	return errUnreachable()
}

func errUnreachable() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "The allow list of this node cannot be reached; try again later")
}

func (l *Allowlist) ask(ctx context.Context, space tinycloud.SpaceID) permission {
	now := l.o.Now()
	resp, err := l.get(ctx, strings.TrimRight(l.o.URL, "/")+"/"+listCID(space))
	if err == nil && (resp.status >= http.StatusInternalServerError || resp.status == http.StatusTooManyRequests) {
		err = fmt.Errorf("status %d", resp.status)
	}
	switch {
	case err != nil:
		l.o.Log.WarnContext(ctx, "allow list cannot be asked", "space", space, "error", err)
		return permission{errUnreachable(), now.Add(unreachableFor)}
	case resp.status/100 == 2 && names(resp.body, space):
		return permission{nil, now.Add(allowedFor)}
	case resp.status/100 == 3:
		l.o.Log.WarnContext(ctx, "allow list redirects, which is not followed", "space", space, "status", resp.status)
	default:
		l.o.Log.InfoContext(ctx, "allow list does not name the space", "space", space, "status", resp.status)
	}
	return permission{tinycloud.Refuse(tinycloud.ErrForbidden, "Space not allowed"), now.Add(deniedFor)}
}

// listCID is the name of a Space in the list: the CIDv1 of its id's BLAKE2b-256 digest, raw, in base58btc.
func listCID(space tinycloud.SpaceID) string {
	digest := blake2b.Sum256([]byte(space.String()))
	mh, err := multihash.Encode(digest[:], multihash.BLAKE2B_MIN+blake2b.Size256-1)
	if err != nil {
		panic("policy: " + err.Error()) // the code and the length are right
	}
	text, err := cid.NewCidV1(cid.Raw, mh).StringOfBase(multibase.Base58BTC)
	if err != nil {
		panic("policy: " + err.Error()) // the base is known
	}
	return text
}

// names reports whether a body is the id of a Space, as text or as a JSON string.
func names(body []byte, space tinycloud.SpaceID) bool {
	body = bytes.TrimSpace(body)
	text := string(body)
	if strings.HasPrefix(text, `"`) && json.Unmarshal(body, &text) != nil {
		return false
	}
	got, err := tinycloud.ParseSpaceID(strings.TrimSpace(text))
	return err == nil && got == space
}
