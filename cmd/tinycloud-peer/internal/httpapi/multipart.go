package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// maxBatchMetadata is how many bytes of names and values the parts of a batch may bring to be stored: they share
// an epoch. How many parts wait for the last one is bounded by a token's capabilities.
const maxBatchMetadata = 512 << 10

// checkBatchPut refuses a multipart invocation that is more than puts below one Space.
func (p plan) checkBatchPut(caps int) error {
	if p.count(actionPut) != caps {
		return badOption("KV batch put only accepts tinycloud.kv/put capabilities with paths")
	}
	seen := make(map[string]bool, len(p.ops))
	for _, o := range p.ops {
		if o.space != p.ops[0].space {
			return badOption("KV batch put must target one space")
		}
		if seen[o.key] {
			return tinycloud.Refuse(tinycloud.ErrInvalid, "Duplicate KV batch put capability for path %s", o.key)
		}
		seen[o.key] = true
	}
	return nil
}

// batchPut is a batch of puts while its body is read.
type batchPut struct {
	api      *API
	c        *call
	body     *bodyReader
	capped   *cappedReader
	ops      []kv.Op  // in the order signed
	staged   []Staged // by operation; nil until its part was read
	index    map[string]int
	metadata int // bytes
}

// putBatch stores each part of the body under the key it names: all of them or none.
func (a *API) putBatch(c *call, ops []op) error {
	defer observe(a.metrics.put, time.Now())
	if c.r.ContentLength > a.o.MaxBody {
		return a.tooLarge()
	}
	b := &batchPut{
		api: a, c: c, body: &bodyReader{r: c.r.Body, w: c.w},
		ops: make([]kv.Op, len(ops)), staged: make([]Staged, len(ops)), index: make(map[string]int, len(ops)),
	}
	b.capped = &cappedReader{r: b.body, left: a.o.MaxBody}
	for i, o := range ops {
		b.ops[i], b.index[o.key] = kv.Op{Space: o.space, Key: o.key}, i
	}
	defer b.discard()
	a.learnQuota(c.r.Context(), ops[0].space)
	if err := b.read(); err != nil {
		return err
	}
	if err := b.commit(); err != nil {
		return err
	}
	if _, err := a.keys.Write(c.r.Context(), c.token, b.ops, nil); err != nil {
		return err
	}
	written := b.keys(func(int) bool { return true })
	return sendJSON(c.w, struct {
		Written []string `json:"written"`
		Count   int      `json:"count"`
	}{written, len(written)})
}

// keys returns those of some operations in byte order.
func (b *batchPut) keys(of func(i int) bool) []string {
	var out []string
	for i, o := range b.ops {
		if of(i) {
			out = append(out, o.Key)
		}
	}
	slices.Sort(out)
	return out
}

func (b *batchPut) discard() {
	for _, s := range b.staged {
		if s != nil {
			s.Discard()
		}
	}
}

func (b *batchPut) read() error {
	_, params, err := mime.ParseMediaType(b.c.r.Header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return badOption("Missing multipart content-type")
	}
	r := multipart.NewReader(b.capped, params["boundary"])
	for {
		p, err := r.NextRawPart() // NextPart would decode quoted-printable
		if err == io.EOF {
			break
		}
		if err != nil {
			return b.broken(err)
		}
		if err := b.part(p); err != nil {
			return err
		}
	}
	if missing := b.keys(func(i int) bool { return b.staged[i] == nil }); len(missing) > 0 {
		return tinycloud.Refuse(tinycloud.ErrInvalid, "Missing multipart KV parts for signed paths: %s", strings.Join(missing, ", "))
	}
	return nil
}

// part stages one part. Its key is judged before its bytes are read.
func (b *batchPut) part(p *multipart.Part) error {
	key, ok := fieldName(p)
	if !ok {
		return badOption("Multipart KV part is missing a field name")
	}
	i, signed := b.index[key]
	switch {
	case !signed:
		return tinycloud.Refuse(tinycloud.ErrInvalid, "Multipart KV part %s is not authorized by the invocation", key)
	case b.staged[i] != nil:
		return tinycloud.Refuse(tinycloud.ErrInvalid, "Duplicate multipart KV part for path %s", key)
	}
	metadata := metadataOf(http.Header(p.Header))
	delete(metadata, "content-disposition") // it names the field
	if b.metadata += hostlog.MetadataSize(metadata); b.metadata > maxBatchMetadata {
		return tinycloud.Refuse(tinycloud.ErrTooLarge, "Multipart KV part headers exceed the limit of %d bytes", maxBatchMetadata)
	}
	if err := checkStored(metadata); err != nil {
		return err
	}
	content := &bodyReader{r: p, w: b.c.w}
	staged, err := b.api.o.Stage(b.c.r.Context(), content, b.api.o.MaxBody)
	if err != nil {
		if content.err != nil {
			return b.broken(content.err)
		}
		return err
	}
	b.staged[i] = staged
	o := &b.ops[i]
	o.Value, o.Size, o.Metadata = staged.Hash(), staged.Size(), metadata
	if small, ok := staged.Bytes(); ok {
		o.Inline = small
	}
	return nil
}

// fieldName returns the key that a part is for. The empty name is that of the empty key.
func fieldName(p *multipart.Part) (string, bool) {
	disposition, params, err := mime.ParseMediaType(p.Header.Get("Content-Disposition"))
	name, ok := params["name"]
	if err != nil || !ok || disposition != "form-data" {
		return "", false
	}
	if key, err := url.PathUnescape(name); err == nil {
		return key, true
	}
	return name, true
}

// broken says why the body can't be read on.
func (b *batchPut) broken(err error) error {
	switch {
	case b.capped.over:
		return b.api.tooLarge()
	case b.body.err != nil:
		return endedEarly(b.c.w, b.body.err)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", err, badOption("The request body ended early"))
	}
	return fmt.Errorf("%w: %w", err, badOption("The multipart body is malformed"))
}

// commit makes values too long for the database durable, once nothing speaks against any of the operations.
func (b *batchPut) commit() error {
	large := func(o kv.Op) bool { return o.Inline == nil }
	if !slices.ContainsFunc(b.ops, large) {
		return nil
	}
	ctx := b.c.r.Context()
	if err := b.api.keys.Check(ctx, b.c.token, b.ops, nil); err != nil {
		return err
	}
	for i, o := range b.ops {
		if !large(o) {
			continue
		}
		if err := b.staged[i].Commit(ctx, o.Space); err != nil {
			return err
		}
	}
	return nil
}

var errTooLong = errors.New("body too long")

// cappedReader ends a body that is longer than allowed, whatever part of it is being read.
type cappedReader struct {
	r    io.Reader
	left int64 // bytes
	over bool
}

func (c *cappedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p[:min(int64(len(p)), c.left+1)])
	if int64(n) > c.left {
		c.over = true
		return int(c.left), errTooLong
	}
	c.left -= int64(n)
	return n, err
}
