package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// record finds the live version of a key.
func (a *API) record(c *call, o op) (capstore.Record, error) {
	rec, err := a.o.Store.Get(c.r.Context(), o.space, o.key)
	var refusal *tinycloud.Refusal
	if errors.Is(err, tinycloud.ErrNotFound) && !errors.As(err, &refusal) {
		return rec, tinycloud.Refuse(tinycloud.ErrNotFound, "Key not found")
	}
	return rec, err
}

// notHere is the refusal while a value is still to be fetched from another host.
func notHere() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "The value has not arrived at this host yet; retry the request")
}

func setRecord(h http.Header, rec capstore.Record) {
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
	h, tag := c.w.Header(), etag(rec.Value)
	if c.options.ifNoneMatch != "" && noneMatches(c.options.ifNoneMatch, tag) {
		setRecord(h, rec)
		h.Set("Cache-Control", "private, no-cache")
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if rec.Size < 0 {
		return notHere()
	}
	part, err := partOf(c.r.Header, tag, rec.Size)
	if err != nil {
		h.Set("ETag", tag)
		h.Set("Cache-Control", "private, no-cache")
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", rec.Size))
		return err
	}
	if limit := c.options.maxBytes; limit > 0 && part.length > limit {
		return tinycloud.Refuse(tinycloud.ErrTooLarge,
			"KV response is %d bytes, exceeding the requested limit of %d bytes", part.length, limit)
	}
	value, err := a.o.Store.Value(c.r.Context(), o.space, rec.Value)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return notHere()
	}
	if err != nil {
		return err
	}
	defer value.Close() //nolint:errcheck // only read
	return sendPart(c.w, rec, part, value)
}

func sendPart(w http.ResponseWriter, rec capstore.Record, part part, value io.ReadSeeker) error {
	if _, err := value.Seek(part.start, io.SeekStart); err != nil {
		return fmt.Errorf("value %s: %w", rec.Value, err)
	}
	h := w.Header()
	setRecord(h, rec)
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(part.length, 10))
	status := http.StatusOK
	if part.partial {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.length-1, rec.Size))
	}
	w.WriteHeader(status)
	if _, err := io.CopyN(w, value, part.length); err != nil {
		return fmt.Errorf("send value %s: %w", rec.Value, err)
	}
	return nil
}
