package httpapi

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// options are what the headers of an invocation ask for.
type options struct {
	pre         *kv.Precondition // of a put or delete; nil for none
	ifNoneMatch string           // of a get; "" for none
	maxBytes    int64            // of a get's body; 0 for no bound
	limit       int              // of a list's keys; 0 for all
	cursor      string           // of a list; "" for the beginning
	after       string           // what the cursor says: the last key already listed
}

const maxListLimit = 1000

func badOption(text string) error { return tinycloud.Refuse(tinycloud.ErrInvalid, "%s", text) }

// readOptions reads the headers, with the reference's refusals (docs/protocol.md, "List" and "Preconditions").
func readOptions(h http.Header, p plan) (o options, err error) {
	if len(h.Values("X-Tinycloud-Expected-Version")) > 0 {
		return o, badOption("x-tinycloud-expected-version is not a production precondition; use If-Match")
	}
	if o.maxBytes, err = positive(h, "x-tinycloud-max-response-bytes"); err != nil {
		return o, err
	}
	if p.count(actionList) > 0 {
		if err := o.readPage(h); err != nil {
			return o, err
		}
	}
	return o, o.readPreconditions(h, p)
}

// readPage reads what only a list has a use for.
func (o *options) readPage(h http.Header) error {
	limit, err := positive(h, "x-tinycloud-limit")
	if err != nil {
		return err
	}
	if limit > maxListLimit {
		return badOption("x-tinycloud-limit must be between 1 and 1000")
	}
	o.limit, o.cursor = int(limit), h.Get("X-Tinycloud-Cursor")
	return nil
}

// positive reads a header that is a positive integer, 0 when it is absent.
func positive(h http.Header, name string) (int64, error) {
	text := strings.TrimSpace(h.Get(name))
	if text == "" && len(h.Values(name)) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return 0, badOption(name + " must be a positive integer")
	}
	return n, nil
}

func (o *options) readPreconditions(h http.Header, p plan) error {
	noneMatch, hasNoneMatch := joined(h, "If-None-Match")
	match, hasMatch := joined(h, "If-Match")
	if hasNoneMatch && !hasMatch && p.single(actionGet) {
		o.ifNoneMatch = noneMatch
		return nil
	}
	switch {
	case !hasNoneMatch && !hasMatch:
		return nil
	case hasNoneMatch && hasMatch:
		return badOption("KV preconditions cannot be combined")
	case hasNoneMatch && noneMatch != "*":
		return badOption("If-None-Match only supports * for KV create")
	case hasNoneMatch && (p.multipart || !p.single(actionPut)):
		return badOption("If-None-Match: * requires exactly one non-multipart KV put")
	case hasNoneMatch:
		o.pre = &kv.Precondition{Absent: true}
		return nil
	case p.multipart || !p.single(actionPut, actionDelete):
		return badOption("If-Match requires exactly one non-multipart KV put or delete")
	}
	hash, err := parseETag(match)
	o.pre = &kv.Precondition{Match: &hash}
	return err
}

// joined returns all values of a header as one list.
func joined(h http.Header, name string) (string, bool) {
	values := h.Values(name)
	return strings.TrimSpace(strings.Join(values, ", ")), len(values) > 0
}

const tagPrefix, tagSuffix = `"blake3-`, `"`

// etag returns the entity tag of a value.
func etag(h tinycloud.Hash) string { return tagPrefix + h.String() + tagSuffix }

// parseETag reads the one entity tag that If-Match takes.
func parseETag(text string) (h tinycloud.Hash, err error) {
	digits, ok := strings.CutPrefix(text, tagPrefix)
	if ok {
		digits, ok = strings.CutSuffix(digits, tagSuffix)
	}
	switch {
	case !ok:
		return h, badOption(`If-Match must be a strong TinyCloud ETag: "blake3-<64 hex characters>"`)
	case len(digits) != hex.EncodedLen(len(h)):
		return h, badOption("If-Match must contain a 32-byte BLAKE3 digest")
	}
	if _, err := hex.Decode(h[:], []byte(digits)); err != nil {
		return h, badOption("If-Match BLAKE3 digest must be hexadecimal")
	}
	return h, nil
}

// noneMatches reports whether an If-None-Match list names the tag, compared weakly.
func noneMatches(list, tag string) bool {
	if list == "*" {
		return true
	}
	for item := range strings.SplitSeq(list, ",") {
		if strings.TrimPrefix(strings.TrimSpace(item), "W/") == tag {
			return true
		}
	}
	return false
}
