package httpapi_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// TestValuesAreFetchedForReaders: who asks for a value that another host has gets it, on every way to read; when the
// other host is away the answer is a 503 and never a 404.
func TestValuesAreFetchedForReaders(t *testing.T) {
	one := newNode(t)
	otherKeys, err := hostkeys.New([]byte(strings.Repeat("another secret of a test ", 3)))
	must(t, err)
	var two *node
	var away atomic.Bool
	var fetched atomic.Int32
	two = newNode(t, func(c *capstore.Options, a *httpapi.Options) {
		c.Keys = otherKeys
		a.Fetch = func(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash) error {
			if away.Load() {
				return fmt.Errorf("nobody there: %w", tinycloud.ErrUnavailable)
			}
			fetched.Add(1)
			b, err := one.store.Inline(ctx, space, value)
			if err == nil {
				err = two.blocks.PutValue(ctx, space, value, b)
			}
			if err == nil {
				err = two.store.Arrived(ctx, space, value, int64(len(b)), nil)
			}
			return err
		}
	})
	two.keys = otherKeys
	o := one.owner("fetch")
	for i := range 4 {
		o.put(fmt.Sprint("far/", i), fmt.Sprint("value ", i), nil).want(t, "put", 200, "")
	}
	two.post("/delegate", o.wallet.SignHost(o.space, two.hostDID(o.space))).wantStatus(t, "host", 200)
	two.take(one, o.space, 2)
	there := *o
	there.n = two

	away.Store(true)
	if got := there.get("far/0", nil); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("while the other host is away: %d %v", got.status, got.header)
	}
	if got := there.batch("get", "far/1", "far/2"); got.status != 503 {
		t.Errorf("a batch while the other host is away: %d", got.status)
	}
	away.Store(false)
	there.get("far/0", nil).want(t, "get", 200, "value 0")
	if got := there.get("far/0", map[string]string{"Range": "bytes=6-"}); got.status != 206 || got.body != "0" {
		t.Errorf("range: %d %q", got.status, got.body)
	}
	if got := there.batch("get", "far/0", "far/1", "far/2"); got.status != 200 || strings.Count(got.body, `"ok":true`) != 3 {
		t.Errorf("batch: %d %s", got.status, got.body)
	}
	two.fetch("GET", there.issue("far/3", "").URL, nil).want(t, "signed URL", 200, "value 3")
	if n := fetched.Load(); n != 4 {
		t.Errorf("%d fetches of 4 values", n)
	}
}
