package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// capabilityParams are the parameters of capabilities/read, which stand in the signed facts.
type capabilityParams struct {
	isChain bool
	chain   string // CID of the delegation whose chain is asked for
	filter  capstore.Filter
	cursor  string // CID of the last delegation of the page before
}

// paramsOf takes the first fact whose parameters parse; others are as good as none (docs/protocol.md,
// "Capabilities").
func paramsOf(facts []json.RawMessage) capabilityParams {
	for _, fact := range facts {
		var members map[string]json.RawMessage
		if json.Unmarshal(fact, &members) != nil {
			continue
		}
		if raw, ok := members["capabilitiesReadParams"]; ok {
			if p, ok := parseParams(raw); ok {
				return p
			}
		}
	}
	return capabilityParams{}
}

// parseParams matches member names exactly, which encoding/json's structs do not.
func parseParams(raw json.RawMessage) (p capabilityParams, ok bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return p, false
	}
	var kind string
	if !member(members, "type", &kind) {
		return p, false
	}
	switch kind {
	case "list":
		return p, optional(members, "cursor", &p.cursor) && parseFilters(members["filters"], &p.filter)
	case "chain":
		p.isChain = true
		return p, member(members, "delegation_cid", &p.chain)
	}
	return p, false
}

func parseFilters(raw json.RawMessage, f *capstore.Filter) bool {
	if raw == nil {
		return true
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return false
	}
	return optional(members, "direction", &f.Direction) && optional(members, "path", &f.Path) &&
		optional(members, "actions", &f.Actions)
}

// member reads a member that must be there and not be null.
func member(members map[string]json.RawMessage, name string, out *string) bool {
	raw, ok := members[name]
	return ok && string(raw) != "null" && json.Unmarshal(raw, out) == nil
}

func optional[T string | []string](members map[string]json.RawMessage, name string, out *T) bool {
	raw, ok := members[name]
	return !ok || json.Unmarshal(raw, out) == nil
}

// maxListings is how many searches for delegations run at once. Writing what was found is not bounded by it: who reads
// slowly keeps nobody out.
const maxListings = 4

// listingPatience is how long a request waits for its turn.
const listingPatience = time.Second

// capabilities answers with the delegations of a Space, or with one delegation and its parents up to the root.
func (a *API) capabilities(c *call, o op) error {
	params := paramsOf(c.token.Facts)
	if params.isChain {
		return a.chainOf(c, o, params.chain)
	}
	if params.cursor != "" {
		after, err := tinycloud.ParseCID(params.cursor)
		if err != nil {
			return tinycloud.Refuse(tinycloud.ErrInvalid, "Invalid capabilities cursor: %s", params.cursor)
		}
		params.filter.After = after
	}
	page, err := a.search(c, o, params.filter)
	if err != nil {
		return err
	}
	if !page.Next.IsZero() {
		c.w.Header().Set("X-Tinycloud-Truncated", "true")
		c.w.Header().Set("X-Tinycloud-Next-Cursor", page.Next.EventID())
	}
	return a.sendListed(c, '{', page.IDs)
}

// enter waits for one of a number of places until it is free, and returns what frees it again. text is what is said to who
// has waited for too long.
func enter(ctx context.Context, places chan struct{}, patience time.Duration, text string) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, tinycloud.Refuse(tinycloud.ErrUnavailable, "%s", text)
	}
}

// search finds the delegations that are listed, in turn.
func (a *API) search(c *call, o op, f capstore.Filter) (page capstore.Page, err error) {
	leave, err := enter(c.r.Context(), a.listings, listingPatience, "Too many lists of capabilities at once; retry the request")
	if err != nil {
		return page, err
	}
	defer leave()
	return a.o.Store.Capabilities(c.r.Context(), c.token, o.space, f)
}

func (a *API) chainOf(c *call, o op, text string) error {
	id, err := tinycloud.ParseCID(text)
	if err != nil {
		return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Invalid delegation CID: %s", text)
	}
	ids, err := a.o.Store.Chain(c.r.Context(), o.space, id)
	if err != nil {
		return err
	}
	return a.sendListed(c, '[', ids)
}

// sendListed writes delegations one by one, so that they are never in memory together: as an array, or as an object by
// their ids.
func (a *API) sendListed(c *call, open byte, ids []tinycloud.Hash) error {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	w := listWriter{w: bufio.NewWriter(c.w)}
	w.text(string(open))
	between := ""
	for _, id := range ids {
		l, ok, err := a.o.Store.Listed(c.r.Context(), id)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		w.text(between)
		if between = ","; open == '{' {
			w.text(`"` + id.EventID() + `":`)
		}
		if w.delegation(l); w.err != nil {
			break
		}
	}
	w.text(string(open + 2)) // the bracket that closes it
	if w.err == nil {
		w.err = w.w.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("capabilities: %w", w.err)
	}
	return nil
}

// listWriter writes delegations as JSON. A resource stands once in a token and once for each ability in what is written,
// so that a delegation may be far longer than its token.
type listWriter struct {
	w   *bufio.Writer
	err error // the first
}

func (w *listWriter) text(s string) {
	if w.err == nil {
		_, w.err = w.w.WriteString(s)
	}
}

// value writes a value that always encodes.
func (w *listWriter) value(v any) {
	b, err := encodeJSON(v)
	if w.err == nil {
		w.err = err
	}
	w.text(string(b))
}

// capability writes one without an encoder: there are thousands in a list. Neither URIs nor abilities have a character that
// JSON escapes.
func (w *listWriter) capability(c capstore.Capability) {
	for _, s := range []string{`{"resource":"`, c.Resource.String(), `","ability":"`, c.Ability, `","caveats":`} {
		w.text(s)
	}
	if c.Caveats == nil {
		w.text("{}")
	} else {
		w.value(caveats(c.Caveats))
	}
	w.text("}")
}

func (w *listWriter) delegation(l capstore.Listed) {
	w.text(`{"capabilities":[`)
	for i, c := range l.Token.Caps {
		if i > 0 {
			w.text(",")
		}
		w.capability(c)
	}
	w.text(`],"delegator":`)
	w.value(string(l.Token.Signer))
	w.text(`,"delegate":`)
	w.value(string(l.Token.Audience))
	w.text(`,"parents":[`)
	for i, p := range l.Parents {
		if i > 0 {
			w.text(",")
		}
		var ints []int
		for _, b := range p.CID(tinycloud.RawCodec).Bytes() {
			ints = append(ints, int(b))
		}
		w.value(ints)
	}
	w.text(`],"raw":"`)
	w.text(l.Token.Header()) // base64url and dots
	w.text(`"}`)
}

// caveats numbers the caveats of a capability; none is an empty object.
func caveats(list json.RawMessage) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	var items []json.RawMessage
	if list == nil || json.Unmarshal(list, &items) != nil {
		return out
	}
	for i, item := range items {
		out[strconv.Itoa(i)] = item
	}
	return out
}
