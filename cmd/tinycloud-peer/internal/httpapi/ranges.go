package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// part is the bytes of a value to send.
type part struct {
	start, length int64
	partial       bool // a range was asked for and is satisfied
}

// setHeaders tells which part of a value of size bytes follows, and returns the status that says so.
func (p part) setHeaders(h http.Header, size int64) (status int) {
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(p.length, 10))
	if !p.partial {
		return http.StatusOK
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", p.start, p.start+p.length-1, size))
	return http.StatusPartialContent
}

// partOf reads Range and If-Range for a value of size bytes. A range that is malformed, in other units, one of
// several, or conditional on another tag is ignored. One that lies outside is an error of class
// [tinycloud.ErrRange].
func partOf(h http.Header, tag string, size int64) (part, error) {
	whole := part{length: size}
	spec, ok := strings.CutPrefix(h.Get("Range"), "bytes=")
	if condition := h.Get("If-Range"); !ok || condition != "" && condition != tag {
		return whole, nil
	}
	from, to, ok := strings.Cut(spec, "-")
	start, hasStart := offset(from)
	end, hasEnd := offset(to)
	switch {
	case !ok || !hasStart && from != "" || !hasEnd && to != "" || !hasStart && !hasEnd || hasStart && hasEnd && end < start:
		return whole, nil
	case !hasStart: // the last end bytes
		start, end = max(0, size-end), size-1
	case !hasEnd || end >= size:
		end = size - 1
	}
	if start >= size {
		return part{}, fmt.Errorf("range %q of %d bytes: %w", spec, size, tinycloud.ErrRange)
	}
	return part{start, end - start + 1, true}, nil
}

// offset reads digits alone.
func offset(text string) (int64, bool) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err == nil
}
