package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// TestDelegationRates has clients elsewhere create Spaces, delegate and revoke as fast as they can.
func TestDelegationRates(t *testing.T) {
	n := newNode(t)
	var remote atomic.Value
	handler := n.api.Handler()
	n.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = remote.Load().(string)
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(n.server.Close)
	created := 0
	create := func(from string) int {
		t.Helper()
		created++
		remote.Store(from)
		w := captest.NewWallet(fmt.Sprint("wallet ", created))
		return n.post("/delegate", w.SignHost(w.Space("default"), n.hostDID(w.Space("default")))).status
	}
	untilRefused := func(try func() int) (accepted int) {
		t.Helper()
		for ; accepted < 2000; accepted++ {
			switch status := try(); status {
			case http.StatusOK, http.StatusUnauthorized:
			case http.StatusTooManyRequests:
				return accepted
			default:
				t.Fatal(status)
			}
		}
		return accepted
	}
	began := time.Now()
	regained := func(perMinute int) int { return 1 + int(time.Since(began).Minutes()*float64(perMinute)) }
	if got := untilRefused(func() int { return create("192.0.2.1:1") }); got < 60 || got > 60+regained(20) {
		t.Errorf("one address created %d Spaces", got)
	}
	hosted := len(n.store.Spaces())
	if status := create("192.0.2.1:2"); status != http.StatusTooManyRequests || len(n.store.Spaces()) != hosted {
		t.Errorf("one more: %d", status)
	}
	if status := create("192.0.2.2:1"); status != http.StatusOK {
		t.Errorf("another address: %d", status)
	}
	remote.Store("[2001:db8::1]:1")
	if got := untilRefused(func() int { return n.post("/delegate", "nonsense").status }); got < 240 || got > 240+regained(120) {
		t.Errorf("one address sent %d delegations", got)
	}
	remote.Store("[2001:db8::2]:1")
	if status := n.post("/revoke", "nonsense").status; status != http.StatusTooManyRequests {
		t.Errorf("a revocation from the same /64: %d", status)
	}
	for range 300 { // this machine's own
		if status := create("127.0.0.1:1"); status != http.StatusOK {
			t.Fatal("from this machine:", status)
		}
	}
}
