package httpapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

const listPage = 1000 // keys read at a time

// lister reads the keys below a prefix that the authorising capability covers.
type lister struct {
	store *capstore.Store // nil where all is
	keys  *kv.Keys
	token *capstore.Token
	op    op
	after string
	all   bool // the capability covers whatever has the prefix
}

// newLister finds out whether keys have to be judged one by one. They have not if a name that nobody can have
// foreseen is covered: then so are all its siblings.
func (a *API) newLister(ctx context.Context, t *capstore.Token, o op, after string) *lister {
	l := &lister{store: a.o.Store, keys: a.keys, token: t, op: o, after: after}
	l.all = l.covers(ctx, o.key+rand.Text())
	return l
}

// covers reports whether the capability covers a key.
func (l *lister) covers(ctx context.Context, key string) bool {
	about, ok := l.op.space.NewKey(kv.Name, key)
	return ok && l.store.Covers(ctx, l.token, about, l.op.ability)
}

// next returns up to n keys and whether there are more.
func (l *lister) next(ctx context.Context, n int) (keys []string, more bool, err error) {
	size := listPage
	if l.all {
		size = n + 1
	}
	for {
		page, more, err := l.keys.List(ctx, l.op.space, l.op.key, l.after, size)
		if err != nil {
			return nil, false, err
		}
		for _, key := range page {
			if !l.covered(ctx, key) {
				l.after = key
				continue
			}
			if len(keys) == n {
				return keys, true, nil
			}
			keys, l.after = append(keys, key), key
		}
		if !more || len(page) == 0 {
			return keys, false, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, false, fmt.Errorf("list: %w", err)
		}
	}
}

// covered keeps the prefix of a list from showing more than its capability, whose path ends at a segment.
func (l *lister) covered(ctx context.Context, key string) bool {
	rest := strings.TrimPrefix(key, l.op.key)
	within := rest == "" || rest[0] == '/' || strings.HasSuffix(l.op.key, "/")
	return l.all || within || l.covers(ctx, key)
}

// list answers with whole keys in byte order. Without a limit it sends page after page.
func (a *API) list(c *call, o op) error {
	ctx := c.r.Context()
	l := a.newLister(ctx, c.token, o, c.options.after)
	if limit := c.options.limit; limit > 0 {
		keys, more, err := l.next(ctx, limit)
		if err != nil {
			return err
		}
		c.w.Header().Set("X-Tinycloud-Truncated", strconv.FormatBool(more))
		if more {
			c.w.Header().Set("X-Tinycloud-Next-Cursor", a.cursor(c, o, keys[len(keys)-1]))
		}
		return sendJSON(c.w, append([]string{}, keys...))
	}
	keys, more, err := l.next(ctx, listPage)
	if err != nil {
		return err
	}
	c.w.Header().Set("X-Tinycloud-Truncated", "false")
	if !more {
		return sendJSON(c.w, append([]string{}, keys...))
	}
	return stream(ctx, c.w, l, keys)
}

// stream sends keys as they are read, so that a long list is never whole in memory.
func stream(ctx context.Context, w http.ResponseWriter, l *lister, keys []string) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	open := "["
	for more := true; len(keys) > 0; {
		b, err := encodeJSON(keys)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%s", open, b[1:len(b)-1]); err != nil {
			return fmt.Errorf("list: %w", err)
		}
		open, keys = ",", nil
		if more {
			if keys, more, err = l.next(ctx, listPage); err != nil {
				return err
			}
		}
	}
	if _, err := w.Write([]byte("]")); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	return nil
}
