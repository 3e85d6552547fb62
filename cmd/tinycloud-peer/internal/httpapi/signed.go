package httpapi

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/tickets"
)

const (
	signedPrefix  = "/signed/kv/"
	signedCache   = "private, no-store"
	maxSignedBody = 64 << 10 // bytes: the longest resource, escaped, fits
)

func (a *API) signedEndpoint(id string) endpoint {
	return endpoint{"signed", http.MethodGet, func(w http.ResponseWriter, r *http.Request) error { return a.getSigned(w, r, id) }}
}

// issueSigned answers with a URL by which anyone can read a key, for a while, on the strength of an invocation to
// get it. The invocation is not used up.
func (a *API) issueSigned(w http.ResponseWriter, r *http.Request) error {
	defer a.metrics.authorized("signed", time.Now())
	header, err := authorization(r)
	if err != nil {
		return err
	}
	token, err := capstore.ParseInvocation(header)
	if err != nil {
		return err
	}
	if err := a.o.Store.AdmitReusable(r.Context(), token); err != nil {
		return err
	}
	body, err := readSigned(w, r)
	if err != nil {
		return err
	}
	request, err := parseSigned(body)
	if err != nil {
		return err
	}
	id, ticket, err := a.tickets.Issue(r.Context(), token, request)
	if err != nil {
		return err
	}
	return sendJSON(w, struct {
		URL     string `json:"url"`
		ID      string `json:"ticketId"`
		Expires string `json:"expiresAt"`
	}{signedPrefix + id.String(), id.String(), ticket.Expires.UTC().Format(time.RFC3339)})
}

func readSigned(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return nil, badOption("Content-Type must be application/json")
	}
	return readBody(w, r, maxSignedBody)
}

// parseSigned reads what a URL is asked for: {space, path, ttlSeconds?, contentHash?, etag?}, where clients also
// write ttl_seconds and content_hash. Other members are ignored; one that stands twice, in either spelling, is
// refused. Refusals are of class [tinycloud.ErrInvalid].
func parseSigned(body []byte) (request tickets.Request, err error) {
	members, err := signedMembers(body)
	if err != nil {
		return request, err
	}
	if _, ok := members["maxUses"]; ok {
		return request, badOption("maxUses is not supported for signed KV URLs yet")
	}
	space, _, err := textMember(members, "space")
	if err != nil {
		return request, err
	}
	path, hasPath, err := textMember(members, "path")
	if err != nil {
		return request, err
	}
	if request.Space, err = tinycloud.ParseSpaceID(space); err != nil {
		return request, fmt.Errorf("%v: %w", err, badOption("Invalid space ID"))
	}
	request.Key = path
	if _, ok := request.Space.NewKey("kv", path); !ok || !hasPath {
		return request, badOption("Invalid path")
	}
	if request.Life, err = signedLife(members); err != nil {
		return request, err
	}
	request.Value, err = signedValue(members)
	return request, err
}

// signedMembers reads an object, leaving out members that are null.
func signedMembers(body []byte) (map[string]json.RawMessage, error) {
	bad := func(what string) error { return badOption("Invalid signed URL request: " + what) }
	if !utf8.Valid(body) {
		return nil, bad("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, bad("not a JSON object")
	}
	spellings := map[string]string{"ttl_seconds": "ttlSeconds", "content_hash": "contentHash", "max_uses": "maxUses"}
	out, seen := map[string]json.RawMessage{}, map[string]bool{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		var value json.RawMessage
		if err != nil || !ok || d.Decode(&value) != nil {
			return nil, bad("not JSON")
		}
		if usual, ok := spellings[name]; ok {
			name = usual
		}
		if seen[name] {
			return nil, bad("a member stands twice: " + strconv.Quote(name))
		}
		if seen[name] = true; string(value) != "null" {
			out[name] = value
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, bad("not JSON")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, bad("more than a JSON object")
	}
	return out, nil
}

func textMember(members map[string]json.RawMessage, name string) (text string, ok bool, err error) {
	raw, ok := members[name]
	if ok && json.Unmarshal(raw, &text) != nil {
		return "", true, badOption("Invalid signed URL request: " + name + " must be a string")
	}
	return text, ok, nil
}

func signedLife(members map[string]json.RawMessage) (time.Duration, error) {
	raw, ok := members["ttlSeconds"]
	if !ok {
		return tickets.MaxLife, nil
	}
	seconds, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		return 0, badOption("Invalid signed URL request: ttlSeconds must be a whole number of seconds")
	}
	return time.Duration(min(seconds, uint64(tickets.MaxLife/time.Second))) * time.Second, nil
}

// signedValue reads the value that the URL is to be bound to, nil for the current one.
func signedValue(members map[string]json.RawMessage) (*tinycloud.Hash, error) {
	var value *tinycloud.Hash
	for _, name := range []string{"contentHash", "etag"} {
		text, ok, err := textMember(members, name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		hash, ok := parseDigest(text)
		if !ok {
			return nil, badOption("contentHash must be a blake3 hex digest")
		}
		if value != nil && *value != hash {
			return nil, badOption("contentHash and ETag must identify the same object")
		}
		value = &hash
	}
	return value, nil
}

// parseDigest reads 64 hexadecimal digits, with or without "blake3-" before them and quotes around it all.
func parseDigest(text string) (h tinycloud.Hash, ok bool) {
	if inner, quoted := strings.CutPrefix(text, `"`); quoted {
		if text, ok = strings.CutSuffix(inner, `"`); !ok {
			return h, false
		}
	}
	digits := strings.TrimPrefix(text, "blake3-")
	if len(digits) != hex.EncodedLen(len(h)) {
		return h, false
	}
	_, err := hex.Decode(h[:], []byte(digits))
	return h, err == nil
}

// getSigned answers whoever holds a URL.
func (a *API) getSigned(w http.ResponseWriter, r *http.Request, text string) error {
	sandbox(w.Header())
	id, ok := tickets.ParseID(text)
	if !ok {
		return tinycloud.Refuse(tinycloud.ErrUnauthorized, "signed URL ticket not found")
	}
	ticket, err := a.tickets.Find(r.Context(), id)
	if err != nil {
		return err
	}
	if err := a.o.Store.Removed(r.Context(), ticket.Space); err != nil {
		return err
	}
	if err := a.o.Store.AwaitHistory(r.Context(), ticket.Space); err != nil {
		return err
	}
	rec, err := a.keys.Get(r.Context(), ticket.Space, ticket.Key)
	switch {
	case errors.Is(err, tinycloud.ErrNotFound):
		return tinycloud.Refuse(tinycloud.ErrNotFound, "Key not found")
	case err != nil:
		return err
	case rec.Value != ticket.Value:
		return tinycloud.Refuse(tinycloud.ErrPrecondition, "signed URL content hash does not match")
	}
	d := delivery{space: ticket.Space, rec: rec, headers: setRecord, cache: signedCache}
	if list, ok := joined(r.Header, "If-None-Match"); ok && noneMatches(list, etag(rec.Value)) {
		d.notModified(w)
		return nil
	}
	if d.rec, err = a.present(r.Context(), ticket.Space, ticket.Key, rec); err != nil {
		return err
	}
	return a.deliver(w, r, d)
}
