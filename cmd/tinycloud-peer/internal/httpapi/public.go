package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

const (
	publicPrefix = "/public/"
	publicName   = "public" // of a Space that anyone may read
	publicCache  = "public, max-age=60"
)

// routePublic finds who answers below /public/, whose paths are <space>/kv and <space>/kv/<key>.
func (a *API) routePublic(path string) (endpoint, bool) {
	rest, ok := strings.CutPrefix(path, publicPrefix)
	space, rest, found := strings.Cut(rest, "/")
	if !ok || !found {
		return endpoint{}, false
	}
	e := endpoint{name: "public", method: http.MethodGet}
	if rest == "kv" {
		e.serve = func(w http.ResponseWriter, r *http.Request) error { return a.listPublic(w, r, space) }
		return e, true
	}
	key, found := strings.CutPrefix(rest, "kv/")
	e.serve = func(w http.ResponseWriter, r *http.Request) error { return a.getPublic(w, r, space, key) }
	return e, found
}

func (a *API) setPublicCORS(h http.Header) {
	if a.o.CORS {
		return
	}
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "If-None-Match")
	h.Set("Access-Control-Expose-Headers", "ETag, Content-Type, Content-Length")
}

// sandbox keeps a document that some user stored, and that a browser opens by its address, from being one of this origin:
// it runs no script and loads nothing.
func sandbox(h http.Header) { h.Set("Content-Security-Policy", "sandbox; default-src 'none'") }

func (a *API) preflightPublic(w http.ResponseWriter, _ *http.Request) error {
	a.setPublicCORS(w.Header())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// admitPublic lets a client at a public Space.
func (a *API) admitPublic(w http.ResponseWriter, r *http.Request, segment string) (space tinycloud.SpaceID, err error) {
	a.setPublicCORS(w.Header())
	sandbox(w.Header())
	if !a.clients.Allow(r.RemoteAddr) {
		return space, tinycloud.Refuse(tinycloud.ErrBusy, "Rate limit exceeded")
	}
	text, err := url.PathUnescape(segment)
	if err == nil {
		space, err = tinycloud.ParseSpaceID(text)
	}
	switch {
	case err != nil:
		return space, fmt.Errorf("%v: %w", err, badOption("Invalid space ID"))
	case space.Name() != publicName:
		return space, tinycloud.Refuse(tinycloud.ErrForbidden, "Not a public space")
	}
	if err := a.o.Store.Removed(r.Context(), space); err != nil {
		return space, err
	}
	return space, a.o.Store.AwaitHistory(r.Context(), space)
}

// getPublic answers with a value. Of a Space that is not hosted here it says no more than of a missing key.
func (a *API) getPublic(w http.ResponseWriter, r *http.Request, segment, path string) error {
	space, err := a.admitPublic(w, r, segment)
	if err != nil {
		return err
	}
	key, err := url.PathUnescape(path)
	if err != nil || !utf8.ValidString(key) {
		return badOption("Invalid key")
	}
	rec, err := a.keys.Get(r.Context(), space, key)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return tinycloud.Refuse(tinycloud.ErrNotFound, "Key not found")
	}
	if err != nil {
		return err
	}
	d := delivery{space: space, rec: rec, headers: setPublicRecord, cache: publicCache}
	if r.Header.Get("If-None-Match") == etag(rec.Value) {
		d.notModified(w)
		return nil
	}
	if d.rec, err = a.present(r.Context(), space, key, rec); err != nil {
		return err
	}
	return a.deliver(w, r, d)
}

// setPublicRecord sets what everyone may know of a value besides its bytes.
func setPublicRecord(h http.Header, rec kv.Record) {
	setMetadata(h, rec.Metadata)
	for name := range h {
		if strings.HasPrefix(strings.ToLower(name), kv.MetaPrefix) {
			h.Del(name)
		}
	}
	h.Del("Content-Disposition")
	h.Set("ETag", etag(rec.Value))
}

func (a *API) listPublic(w http.ResponseWriter, r *http.Request, segment string) error {
	space, err := a.admitPublic(w, r, segment)
	if err != nil {
		return err
	}
	prefix := r.URL.Query().Get("prefix")
	if !utf8.ValidString(prefix) {
		return badOption("Invalid prefix")
	}
	l := &lister{keys: a.keys, op: op{space: space, key: prefix}, all: true}
	keys, more, err := l.next(r.Context(), listPage)
	if err != nil && !errors.Is(err, tinycloud.ErrNotFound) {
		return err
	}
	w.Header().Set("Cache-Control", publicCache)
	if !more {
		return sendJSON(w, append([]string{}, keys...))
	}
	return stream(r.Context(), w, l, keys)
}
