package httpapi_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

// TestQuotaIsLearnedFirst has the limit known only from the moment the API told of the Space.
func TestQuotaIsLearnedFirst(t *testing.T) {
	var mu sync.Mutex
	limits := map[tinycloud.SpaceID]int64{}
	told := 0
	n := newNode(t, func(c *capstore.Options, a *httpapi.Options) {
		c.Limit = func(space tinycloud.SpaceID) (int64, bool) {
			mu.Lock()
			defer mu.Unlock()
			limit, ok := limits[space]
			return limit, ok
		}
		a.Quota = func(_ context.Context, space tinycloud.SpaceID) {
			mu.Lock()
			defer mu.Unlock()
			limits[space] = 20
			told++
		}
		a.QuotaURL = "https://quota.example"
	})
	if got := n.do(n.request(http.MethodGet, "/info", "", nil, nil)); !strings.Contains(got.body, `"quota_url":"https://quota.example"`) {
		t.Error(got.body)
	}
	o := n.owner("quota")
	o.put("a", strings.Repeat("a", 21), nil).want(t, "too much", 413, "Write exceeds remaining storage. Used: 0 bytes, Limit: 20 bytes")
	mu.Lock()
	clear(limits)
	mu.Unlock()
	batch := formPart("a", "", strings.Repeat("a", 10)) + formPart("b", "", strings.Repeat("b", 11)) + formEnd
	o.form(o.putToken("a", "b"), batch).want(t, "batch", 413, "Write exceeds remaining storage. Used: 0 bytes, Limit: 20 bytes")
	batch = formPart("a", "", strings.Repeat("a", 20)) + formPart("b", "", strings.Repeat("a", 20)) + formEnd
	o.form(o.putToken("a", "b"), batch).want(t, "one value twice", 200, `{"written":["a","b"],"count":2}`)
	o.put("c", strings.Repeat("a", 20), nil).want(t, "the same value", 200, "")
	o.put("c", "c", nil).want(t, "full", 402, "Storage quota exceeded. Used: 20 bytes, Limit: 20 bytes")
	o.get("c", nil).want(t, "get", 200, strings.Repeat("a", 20))
	if told != 5 {
		t.Errorf("told %d times of 5 writes", told)
	}
}

func TestInfoWithoutQuotaURL(t *testing.T) {
	n := newNode(t)
	if got := n.do(n.request(http.MethodGet, "/info", "", nil, nil)); strings.Contains(got.body, "quota_url") {
		t.Error(got.body)
	}
}

// TestSpaceNotAllowed follows a client's sign-in at a node that doesn't host everyone.
func TestSpaceNotAllowed(t *testing.T) {
	var answer error
	n := newNode(t, func(c *capstore.Options, _ *httpapi.Options) {
		c.Allow = func(context.Context, tinycloud.SpaceID) error { return answer }
	})
	wallet := captest.NewWallet("refused")
	space := wallet.Space("default")
	session := captest.NewSession("refused")
	grant := wallet.SignDelegation(captest.DelegationOptions{
		Audience: session.URI(), Caps: captest.Caps{space.String() + "/kv": kvAbilities},
	})
	host := wallet.SignHost(space, n.hostDID(space))
	answer = tinycloud.Refuse(tinycloud.ErrForbidden, "Space not allowed")
	skipped := `"skipped":["` + space.String() + `"]`
	if got := n.post("/delegate", grant); got.status != 200 || !strings.Contains(got.body, skipped) {
		t.Errorf("session: %d %s", got.status, got.body)
	}
	n.post("/delegate", host).want(t, "host", 403, "Space not allowed")
	answer = tinycloud.Refuse(tinycloud.ErrUnavailable, "try later")
	got := n.post("/delegate", host)
	got.want(t, "host, list away", 503, "try later")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	answer = nil
	if got := n.post("/delegate", host); got.status != 200 || !strings.Contains(got.body, `"activated":["`+space.String()) {
		t.Errorf("host: %d %s", got.status, got.body)
	}
	if got := n.post("/delegate", grant); got.status != 200 || !strings.Contains(got.body, `"skipped":[]`) {
		t.Errorf("session again: %d %s", got.status, got.body)
	}
}
