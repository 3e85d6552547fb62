package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// record finds the live version of a key.
func (a *API) record(c *call, o op) (kv.Record, error) {
	var rec kv.Record
	var err error
	if c.ahead != nil {
		f := <-c.ahead
		rec, err, c.ahead = f.rec, f.err, nil
	} else {
		rec, err = a.keys.Get(c.r.Context(), o.space, o.key)
	}
	var refusal *tinycloud.Refusal
	if errors.Is(err, tinycloud.ErrNotFound) && !errors.As(err, &refusal) {
		return rec, tinycloud.Refuse(tinycloud.ErrNotFound, "Key not found")
	}
	return rec, err
}

// recordAhead finds the live version of a key while the database is told that the token is used: of a server both take a
// round trip.
func (a *API) recordAhead(c *call, o op) <-chan found {
	ctx, ahead := c.r.Context(), make(chan found, 1)
	go func() {
		rec, err := a.keys.Get(ctx, o.space, o.key)
		ahead <- found{rec, err}
	}()
	return ahead
}

// fetchWait is how long a reader waits for a value of another host; a reader of many for all of them.
const fetchWait = 10 * time.Second

// notHere is the refusal while a value is still to be fetched from another host.
func notHere() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "The value has not arrived at this host yet; retry the request")
}

// present returns the record of a value that is here. One that is not is asked of the other hosts, for which the
// reader waits a while.
func (a *API) present(ctx context.Context, space tinycloud.SpaceID, key string, rec kv.Record) (kv.Record, error) {
	if rec.Size >= 0 {
		return rec, nil
	}
	if a.o.Fetch == nil {
		return rec, notHere()
	}
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	if err := a.o.Fetch(ctx, space, rec.Value); err != nil {
		a.log.DebugContext(ctx, "value not fetched", "value", rec.Value, "error", err)
		if refusal, ok := errors.AsType[*tinycloud.Refusal](err); ok && errors.Is(err, tinycloud.ErrUnavailable) {
			return rec, refusal // it says why
		}
		return rec, notHere()
	}
	again, err := a.keys.Get(ctx, space, key)
	if err != nil || again.Value != rec.Value || again.Size < 0 {
		return rec, notHere() // written anew meanwhile
	}
	return again, nil
}

func setRecord(h http.Header, rec kv.Record) {
	setMetadata(h, rec.Metadata)
	h.Set("ETag", etag(rec.Value))
}

func (a *API) metadata(c *call, o op) error {
	rec, err := a.record(c, o)
	if err != nil {
		return err
	}
	setRecord(c.w.Header(), rec)
	send(c.w, http.StatusOK, "", nil)
	return nil
}

// get answers with a value or the part of it that is asked for.
func (a *API) get(c *call, o op) error {
	rec, err := a.record(c, o)
	if err != nil {
		return err
	}
	d := delivery{space: o.space, rec: rec, headers: setRecord, cache: "private, no-cache", maxBytes: c.options.maxBytes}
	if c.options.ifNoneMatch != "" && noneMatches(c.options.ifNoneMatch, etag(rec.Value)) {
		h := c.w.Header()
		d.describe(h)
		frameNotModified(h)
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if d.rec, err = a.present(c.r.Context(), o.space, o.key, rec); err != nil {
		return err
	}
	return a.deliver(c.w, c.r, d)
}

// frameNotModified lets a 304 carry the content type, and a length of 0, as the reference's does. net/http
// takes both out of a 304 under their canonical names only. A length that isn't the value's would mislead a
// cache (RFC 9110 §8.6), but nothing caches the answer to a POST with a token.
func frameNotModified(h http.Header) {
	if contentType := h.Get("Content-Type"); contentType != "" {
		h["content-type"] = []string{contentType}
	}
	h["content-length"] = []string{"0"}
}

// delivery is a value on its way to a client.
type delivery struct {
	space    tinycloud.SpaceID
	rec      kv.Record
	headers  func(http.Header, kv.Record) // sets the stored headers and the entity tag
	cache    string                       // Cache-Control
	maxBytes int64                        // of the body; 0 for no bound
}

func (d delivery) describe(h http.Header) {
	d.headers(h, d.rec)
	h.Set("Cache-Control", d.cache)
}

// notModified answers that the client has the value.
func (d delivery) notModified(w http.ResponseWriter) {
	d.describe(w.Header())
	w.WriteHeader(http.StatusNotModified)
}

// deliver answers with a value or the part of it that is asked for. A HEAD gets
// no body, and its range is ignored (RFC 9110 §14.2).
func (a *API) deliver(w http.ResponseWriter, r *http.Request, d delivery) error {
	h, p := w.Header(), part{length: d.rec.Size}
	if r.Method != http.MethodHead {
		var err error
		if p, err = partOf(r.Header, etag(d.rec.Value), d.rec.Size); err != nil {
			h.Set("ETag", etag(d.rec.Value))
			h.Set("Cache-Control", d.cache)
			h.Set("Accept-Ranges", "bytes")
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", d.rec.Size))
			return err
		}
	}
	if d.maxBytes > 0 && p.length > d.maxBytes {
		return tinycloud.Refuse(tinycloud.ErrTooLarge,
			"KV response is %d bytes, exceeding the requested limit of %d bytes", p.length, d.maxBytes)
	}
	value, err := a.keys.Open(r.Context(), d.space, d.rec)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return notHere()
	}
	if err != nil {
		return err
	}
	defer value.Close() //nolint:errcheck // only read
	if _, err := value.Seek(p.start, io.SeekStart); err != nil {
		return fmt.Errorf("value %s: %w", d.rec.Value, err)
	}
	d.describe(h)
	w.WriteHeader(p.setHeaders(h, d.rec.Size))
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := io.CopyN(w, value, p.length); err != nil {
		return fmt.Errorf("send value %s: %w", d.rec.Value, err)
	}
	return nil
}
