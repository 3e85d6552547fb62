package httpapi

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

const (
	maxManageBody     = 16 << 10 // bytes
	defaultQueryLimit = 50
)

// decodeStrict reads one JSON object that has only members known to out, spelled exactly, and none of them twice.
func decodeStrict(b []byte, names []string, out any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("expected a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return errors.New("malformed JSON")
		}
		name, _ := t.(string)
		switch {
		case !slices.Contains(names, name):
			return fmt.Errorf("unknown field `%.80s`, expected one of `%s`", name, strings.Join(names, "`, `"))
		case seen[name]:
			return fmt.Errorf("duplicate field `%s`", name)
		}
		seen[name] = true
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return errors.New("malformed JSON")
		}
	}
	if json.Unmarshal(b, out) != nil { // which sees what comes after the object, too
		return errors.New("malformed JSON or a field of the wrong type")
	}
	return nil
}

// parseStatusBody reads {"cid":"…"} and returns the CID as written, too.
func parseStatusBody(b []byte) (id tinycloud.Hash, text string, err error) {
	var body struct {
		CID *string `json:"cid"`
	}
	if decodeStrict(b, []string{"cid"}, &body) != nil || body.CID == nil {
		return id, "", errBadCID()
	}
	if id, err = tinycloud.ParseCID(*body.CID); err != nil {
		return id, "", errBadCID()
	}
	return id, *body.CID, nil
}

func errBadCID() error { return tinycloud.Refuse(tinycloud.ErrInvalid, "Invalid delegation CID") }

// serveDelegationStatus tells whether a delegation is in force (docs/protocol.md, "POST /delegation/status").
func (a *API) serveDelegationStatus(w http.ResponseWriter, r *http.Request) error {
	token, err := invocationOf(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if err := a.o.Store.Verify(ctx, token); isDenied(err) {
		return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Invalid status invocation")
	} else if err != nil {
		return err
	}
	b, err := readBody(w, r, maxManageBody)
	if err != nil {
		return err
	}
	id, text, err := parseStatusBody(b)
	if err != nil {
		return err
	}
	l, err := a.o.Store.DelegationStatus(ctx, token, id)
	if err != nil && !errors.Is(err, tinycloud.ErrNotFound) {
		return err
	}
	if err := a.o.Store.Burn(ctx, token); err != nil {
		return err
	}
	answer := statusOf(text, l, err == nil)
	out, err := encodeJSON(answer)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if !answer.Exists {
		status = http.StatusNotFound
	}
	send(w, status, "application/json", out)
	return nil
}

// invocationOf decodes the token of a request.
func invocationOf(r *http.Request) (*capstore.Token, error) {
	header, err := authorization(r)
	if err != nil {
		return nil, err
	}
	return capstore.ParseInvocation(header)
}

func isDenied(err error) bool {
	return errors.Is(err, tinycloud.ErrUnauthorized) || errors.Is(err, tinycloud.ErrForged)
}

type statusJSON struct {
	CID     string `json:"cid"`
	Status  string `json:"status"`
	Exists  bool   `json:"exists"`
	Active  bool   `json:"active"`
	Revoked bool   `json:"revoked"`
	Expired bool   `json:"expired"`
}

// statusOf says a state in this answer's fewer words.
func statusOf(cid string, l capstore.Lifecycle, exists bool) statusJSON {
	out := statusJSON{CID: cid, Status: "unavailable", Exists: exists}
	switch {
	case !exists:
		out.Status = "not_found"
	case l.State == capstore.StateActive:
		out.Status, out.Active = "active", true
	case l.State == capstore.StateExpired:
		out.Status, out.Expired = "expired", true
	case l.State == capstore.StateRevoked, l.State == capstore.StateAncestorRevoked:
		out.Status, out.Revoked = "revoked", true
	}
	return out
}

func badQuery(format string, args ...any) error {
	return tinycloud.Refuse(tinycloud.ErrInvalid, "Invalid delegation query: %s", fmt.Sprintf(format, args...))
}

// parseQuery reads the body of a query. A member that is null counts as absent, except the direction.
func parseQuery(b []byte) (q capstore.DelegationQuery, err error) {
	body := struct {
		Direction json.RawMessage `json:"direction"`
		Status    *string         `json:"status"`
		Space     *string         `json:"space"`
		Limit     *uint16         `json:"limit"`
		Cursor    *string         `json:"cursor"`
	}{}
	if err := decodeStrict(b, []string{"direction", "status", "space", "limit", "cursor"}, &body); err != nil {
		return q, badQuery("%v", err)
	}
	q.Direction, q.Limit = "all", defaultQueryLimit
	if body.Direction != nil && (json.Unmarshal(body.Direction, &q.Direction) != nil || string(body.Direction) == "null") ||
		!slices.Contains([]string{"granted", "received", "all"}, q.Direction) {
		return q, badQuery("direction must be granted, received or all")
	}
	if body.Status != nil {
		q.Status = capstore.State(*body.Status)
		if !slices.Contains([]capstore.State{
			capstore.StateActive, capstore.StatePending, capstore.StateExpired, capstore.StateRevoked, capstore.StateAncestorRevoked,
		}, q.Status) {
			return q, badQuery("status must be active, pending, expired, revoked or ancestor_revoked")
		}
	}
	if body.Space != nil {
		if q.Space = *body.Space; strings.TrimSpace(q.Space) == "" {
			return q, badQuery("space must not be empty")
		}
	}
	if body.Limit != nil {
		if q.Limit = int(*body.Limit); q.Limit < 1 || q.Limit > capstore.MaxQueryLimit {
			return q, badQuery("limit must be between 1 and %d", capstore.MaxQueryLimit)
		}
	}
	if body.Cursor != nil {
		text, err := base64.RawURLEncoding.Strict().DecodeString(*body.Cursor)
		if err == nil {
			q.After, err = tinycloud.ParseCID(string(text))
		}
		if err != nil {
			return q, badQuery("invalid delegation query cursor")
		}
	}
	return q, nil
}

// serveDelegationQuery lists the delegations of an account.
func (a *API) serveDelegationQuery(w http.ResponseWriter, r *http.Request) error {
	token, err := invocationOf(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if err = a.o.Store.Verify(ctx, token); err == nil {
		err = a.o.Store.Authorise(ctx, token)
	}
	if isDenied(err) {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "Delegation query proof is not authorized")
	}
	if err != nil {
		return err
	}
	b, err := readBody(w, r, maxManageBody)
	if err != nil {
		return err
	}
	q, err := parseQuery(b)
	if err != nil {
		return err
	}
	page, err := a.o.Store.QueryDelegations(ctx, token, q)
	if err != nil {
		return err
	}
	if err := a.o.Store.Burn(ctx, token); err != nil {
		return err
	}
	return sendJSON(w, pageOf(page))
}

type resourceJSON struct {
	Resource string                       `json:"resource"`
	Actions  []string                     `json:"actions"`
	Caveats  []map[string]json.RawMessage `json:"caveats"` // one for each action
}

type recordJSON struct {
	CID             string         `json:"cid"`
	Direction       string         `json:"direction"`
	DelegatorDID    string         `json:"delegatorDid"`
	DelegateDID     string         `json:"delegateDid"`
	Resources       []resourceJSON `json:"resources"`
	Parents         []string       `json:"parents"`
	IssuedAt        *time.Time     `json:"issuedAt"`
	NotBefore       *time.Time     `json:"notBefore"`
	ExpiresAt       *time.Time     `json:"expiresAt"`
	Status          capstore.State `json:"status"`
	RevokedAt       *time.Time     `json:"revokedAt,omitempty"`
	RevokedBy       string         `json:"revokedBy,omitempty"`
	RevokedAncestor string         `json:"revokedAncestorCid,omitempty"`
}

type pageJSON struct {
	SchemaVersion int          `json:"schemaVersion"`
	Items         []recordJSON `json:"items"`
	NextCursor    string       `json:"nextCursor,omitempty"`
}

func pageOf(page capstore.DelegationPage) pageJSON {
	out := pageJSON{SchemaVersion: 2, Items: make([]recordJSON, len(page.Records))}
	for i, r := range page.Records {
		out.Items[i] = recordOf(r)
	}
	if !page.Next.IsZero() {
		out.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(page.Next.EventID()))
	}
	return out
}

func recordOf(r capstore.DelegationRecord) recordJSON {
	out := recordJSON{
		CID: r.ID.EventID(), Direction: "received", DelegatorDID: string(r.Signer), DelegateDID: string(r.Audience),
		Resources: resourcesOf(r.Caps), Parents: []string{}, Status: r.State, RevokedBy: string(r.RevokedBy),
		IssuedAt: said(r.IssuedAt), NotBefore: said(r.NotBefore), ExpiresAt: said(r.Expires), RevokedAt: said(r.RevokedAt),
	}
	if r.Granted {
		out.Direction = "granted"
	}
	if !r.Ancestor.IsZero() {
		out.RevokedAncestor = r.Ancestor.EventID()
	}
	parents := slices.Clone(r.Proofs)
	slices.SortFunc(parents, func(x, y tinycloud.Hash) int { return bytes.Compare(x[:], y[:]) })
	for _, p := range slices.Compact(parents) {
		out.Parents = append(out.Parents, p.EventID())
	}
	return out
}

// said returns nil for a time that was not given. What an offset carried beyond the years that can be written is
// brought back to them.
func said(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	switch t = t.UTC(); {
	case t.Year() > 9999:
		t = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)
	case t.Year() < 0:
		t = time.Date(0, time.January, 1, 0, 0, 0, 0, time.UTC)
	}
	return &t
}

// resourcesOf groups capabilities by resource, both sorted.
func resourcesOf(caps []capstore.Capability) []resourceJSON {
	caps = slices.Clone(caps)
	slices.SortStableFunc(caps, func(x, y capstore.Capability) int {
		return cmp.Or(cmp.Compare(x.Resource.String(), y.Resource.String()), cmp.Compare(x.Ability, y.Ability))
	})
	out := []resourceJSON{}
	for _, c := range caps {
		if n := len(out); n == 0 || out[n-1].Resource != c.Resource.String() {
			out = append(out, resourceJSON{Resource: c.Resource.String()})
		}
		last := &out[len(out)-1]
		last.Actions, last.Caveats = append(last.Actions, c.Ability), append(last.Caveats, caveats(c.Caveats))
	}
	return out
}
