package httpapi

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

const maxBatchRead = 100 // keys

// readsBatch reports whether the operations are several gets, or several of metadata.
func (p plan) readsBatch() bool {
	n := len(p.ops)
	return n > 1 && (p.count(actionGet) == n || p.count(actionMetadata) == n)
}

type batchError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type batchResult struct {
	Key     string            `json:"key"`
	OK      bool              `json:"ok"`
	Data    *string           `json:"dataBase64,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Error   *batchError       `json:"error,omitempty"`
}

// batchItem is one result: JSON with a gap for the value, which is only read while it is sent.
type batchItem struct {
	before, after []byte
	op            op
	rec           kv.Record
	hasValue      bool
}

func (i batchItem) size() int64 {
	n := int64(len(i.before) + len(i.after))
	if i.hasValue {
		n += (i.rec.Size + 2) / 3 * 4
	}
	return n
}

// readBatch answers for every key in the order signed. What would break the answer off is found out before it
// begins; values are sent one after the other, so that a batch is never whole in memory.
func (a *API) readBatch(c *call, ops []op) error {
	const open, end = `{"results":[`, `]}`
	ctx, cancel := context.WithTimeout(c.r.Context(), fetchWait)
	defer cancel()
	items := make([]batchItem, len(ops))
	length, values := int64(len(open)+len(end)+len(ops)-1), int64(0)
	for i, o := range ops {
		var err error
		if items[i], err = a.batchItem(ctx, o); err != nil {
			return err
		}
		length += items[i].size()
		if items[i].hasValue {
			values += items[i].rec.Size
		}
	}
	if limit := c.options.maxBytes; limit > 0 && values > limit {
		return tinycloud.Refuse(tinycloud.ErrTooLarge,
			"KV response is %d bytes, exceeding the requested limit of %d bytes", values, limit)
	}
	if err := a.openable(c, items); err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	c.w.WriteHeader(http.StatusOK)
	if err := a.sendItems(c, open, items); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	if _, err := io.WriteString(c.w, end); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	return nil
}

// batchItem looks a key up. A key without a value is a result, a value that is elsewhere is none.
func (a *API) batchItem(ctx context.Context, o op) (batchItem, error) {
	item := batchItem{op: o, hasValue: o.action == actionGet}
	result := batchResult{Key: o.key, OK: true}
	rec, err := a.keys.Get(ctx, o.space, o.key)
	if err == nil && o.action == actionGet {
		rec, err = a.present(ctx, o.space, o.key, rec)
	}
	var refusal *tinycloud.Refusal
	switch {
	case errors.Is(err, tinycloud.ErrNotFound) && !errors.As(err, &refusal):
		item.hasValue = false
		result.OK, result.Error = false, &batchError{"KV_NOT_FOUND", "Key not found: " + o.key}
	case err != nil:
		return item, err
	default:
		item.rec = rec
		result.Headers = batchHeaders(rec, item.hasValue)
	}
	if item.hasValue {
		result.Data = new(string)
	}
	b, err := encodeJSON(result)
	if err != nil {
		return item, err
	}
	item.before = b
	if item.hasValue {
		// A quote within the key is escaped, so that this is the member.
		const gap = `,"dataBase64":"`
		at := strings.Index(string(b), gap) + len(gap)
		item.before, item.after = b[:at], b[at:]
	}
	return item, nil
}

func batchHeaders(rec kv.Record, sized bool) map[string]string {
	out := map[string]string{"etag": etag(rec.Value)}
	for name, value := range rec.Metadata {
		if lower := strings.ToLower(name); kv.IsMetadata(lower, value) {
			out[lower] = value
		}
	}
	if sized {
		out["content-length"] = strconv.FormatInt(rec.Size, 10)
	}
	return out
}

func (a *API) openItem(c *call, item batchItem) (io.ReadSeekCloser, error) {
	value, err := a.keys.Open(c.r.Context(), item.op.space, item.rec)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return nil, notHere()
	}
	return value, err
}

// openAtOnce is how many values of a batch are opened together: each is a request where values are in a bucket.
const openAtOnce = 8

// openable opens values and closes them, for files that are open at once have to be few.
func (a *API) openable(c *call, items []batchItem) error {
	var group errgroup.Group
	group.SetLimit(openAtOnce)
	errs := make([]error, len(items))
	for i, item := range items {
		if !item.hasValue {
			continue
		}
		group.Go(func() error {
			value, err := a.openItem(c, item)
			if err == nil {
				err = value.Close()
			}
			errs[i] = err
			return nil
		})
	}
	_ = group.Wait() // errs has them
	return cmp.Or(errs...)
}

// openedItem is a value that was opened ahead; of an item without a value it has none.
type openedItem struct {
	value io.ReadSeekCloser
	err   error
}

// openSoon opens the value of an item while others are sent.
func (a *API) openSoon(c *call, item batchItem) <-chan openedItem {
	soon := make(chan openedItem, 1)
	if !item.hasValue {
		soon <- openedItem{}
		return soon
	}
	go func() {
		value, err := a.openItem(c, item)
		soon <- openedItem{value, err}
	}()
	return soon
}

// sendItems sends results one after the other; the next one's value is opened meanwhile.
func (a *API) sendItems(c *call, separator string, items []batchItem) error {
	var soon <-chan openedItem
	if len(items) > 0 {
		soon = a.openSoon(c, items[0])
	}
	for i, item := range items {
		opened := <-soon
		if soon = nil; i+1 < len(items) {
			soon = a.openSoon(c, items[i+1])
		}
		err := opened.err
		if err == nil {
			err = sendItem(c, separator, item, opened.value)
		}
		if opened.value != nil {
			_ = opened.value.Close() // only read
		}
		if err != nil {
			if soon != nil {
				if next := <-soon; next.value != nil {
					_ = next.value.Close()
				}
			}
			return err
		}
		separator = ","
	}
	return nil
}

func sendItem(c *call, separator string, item batchItem, value io.Reader) error {
	if _, err := fmt.Fprintf(c.w, "%s%s", separator, item.before); err != nil {
		return err
	}
	if !item.hasValue {
		return nil
	}
	encoder := base64.NewEncoder(base64.StdEncoding, c.w)
	if _, err := io.CopyN(encoder, value, item.rec.Size); err != nil {
		return fmt.Errorf("send value %s: %w", item.rec.Value, err)
	}
	if err := encoder.Close(); err != nil {
		return err
	}
	_, err := c.w.Write(item.after)
	return err
}
