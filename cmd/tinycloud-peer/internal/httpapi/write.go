package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// put stores the request's body. Bytes too long for the database are durable before the row that names them.
func (a *API) put(c *call, o op) error {
	ctx := c.r.Context()
	metadata := metadataOf(c.r.Header)
	if err := checkStored(metadata); err != nil {
		return err
	}
	a.learnQuota(ctx, o.space)
	staged, err := a.stage(c)
	if err != nil {
		return err
	}
	defer staged.Discard()
	put := kv.Op{
		Space: o.space, Key: o.key, Value: staged.Hash(), Size: staged.Size(), Metadata: metadata,
	}
	if b, small := staged.Bytes(); small {
		put.Inline = b
		return a.write(c, put)
	}
	if err := a.keys.Check(ctx, c.token, []kv.Op{put}, c.options.pre); err != nil {
		return err
	}
	if err := staged.Commit(ctx, o.space); err != nil {
		return err
	}
	return a.write(c, put)
}

// learnQuota lets the node find out how much a Space may hold: the transaction that judges it can't wait for it.
func (a *API) learnQuota(ctx context.Context, space tinycloud.SpaceID) {
	if a.o.Quota != nil {
		a.o.Quota(ctx, space)
	}
}

func (a *API) delete(c *call, o op) error {
	return a.write(c, kv.Op{Space: o.space, Key: o.key, Delete: true})
}

// write answers when the operation is durable.
func (a *API) write(c *call, o kv.Op) error {
	hashes, err := a.keys.Write(c.r.Context(), c.token, []kv.Op{o}, c.options.pre)
	if err != nil {
		return err
	}
	if len(hashes) == 1 && !hashes[0].IsZero() {
		c.w.Header().Set("ETag", etag(hashes[0]))
	}
	send(c.w, http.StatusOK, "", nil)
	return nil
}

// stage reads the body.
func (a *API) stage(c *call) (Staged, error) {
	if c.r.ContentLength > a.o.MaxBody {
		return nil, a.tooLarge()
	}
	body := &bodyReader{r: c.r.Body, w: c.w}
	staged, err := a.o.Stage(c.r.Context(), body, a.o.MaxBody)
	switch {
	case err == nil:
		return staged, nil
	case errors.Is(err, tinycloud.ErrTooLarge):
		return nil, a.tooLarge()
	case body.err != nil:
		return nil, endedEarly(c.w, body.err)
	}
	return nil, err
}

func (a *API) tooLarge() error {
	return tinycloud.Refuse(tinycloud.ErrTooLarge, "Request body exceeds the limit of %d bytes", a.o.MaxBody)
}

// readBody reads a whole small body.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(&bodyReader{r: http.MaxBytesReader(w, r.Body, limit), w: w})
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return nil, tinycloud.Refuse(tinycloud.ErrTooLarge, "Request body exceeds the limit of %d bytes", limit)
	case err != nil:
		return nil, endedEarly(w, err)
	}
	return body, nil
}

// endedEarly is the refusal of a body that could not be read to its end.
func endedEarly(w http.ResponseWriter, err error) error {
	w.Header().Set("Connection", "close") // there is no finding the end of this request
	return fmt.Errorf("%w: %w", err, tinycloud.Refuse(tinycloud.ErrInvalid, "%s", bodyText(err)))
}

func bodyText(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "The request body took too long"
	}
	return "The request body ended early"
}

// bodyReader moves the deadlines on with every read and remembers why reading ended.
type bodyReader struct {
	r   io.Reader
	w   http.ResponseWriter
	err error // nil or not io.EOF
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if w, ok := b.w.(*response); ok {
		w.extend()
	}
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}
