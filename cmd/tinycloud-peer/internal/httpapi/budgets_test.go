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

// from has the node believe that requests come from the stored address.
func (n *node) from() *atomic.Value {
	remote := new(atomic.Value)
	handler := n.api.Handler()
	n.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = remote.Load().(string)
		handler.ServeHTTP(w, r)
	}))
	n.t.Cleanup(n.server.Close)
	return remote
}

// TestDelegationRates has clients elsewhere create Spaces, delegate and revoke as fast as they can.
func TestDelegationRates(t *testing.T) {
	n := newNode(t)
	remote := n.from()
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

// TestNetworkRates has clients elsewhere ask about encryption networks as fast as they can, on each of the ways.
func TestNetworkRates(t *testing.T) {
	n := newNode(t, networks)
	remote := n.from()
	remote.Store("127.0.0.1:1")
	c := n.custodian("alice")
	made := c.mustCreate("default")
	e, _ := encryptFor(t, made)
	q, _ := c.Decrypt(c.id, e.KeyVersion, e.EncryptedSymmetricKey)
	header, text := q.Header(), q.Text()
	revoke := c.Revoke(c.id).Header()
	ways := map[string]func() answer{
		"describe": func() answer { return n.do(n.request("GET", networkPath(c.id, ""), "", nil, nil)) },
		"discover": func() answer {
			return n.do(n.request("GET", "/.well-known/encryption/network/default?ownerDid="+string(c.wallet.DID()), "", nil, nil))
		},
		"create":  func() answer { return c.create("other") },
		"decrypt": func() answer { return n.ask(networkPath(c.id, "/decrypt"), header, text) },
		"revoke":  func() answer { return n.ask(networkPath(c.id, "/revoke"), revoke, "") },
		"invoke":  func() answer { return n.ask("/invoke", header, text) },
	}
	remote.Store("192.0.2.1:1")
	began, asked := time.Now(), 0
	for ; asked < 3000 && ways["describe"]().status != http.StatusTooManyRequests; asked++ {
	}
	if most := 601 + int(time.Since(began).Seconds()*10); asked < 600 || asked > most {
		t.Fatalf("one address asked %d times", asked)
	}
	counted := func(ask func() answer) bool {
		for range 50 { // budget comes back meanwhile
			for ways["describe"]().status != http.StatusTooManyRequests {
			}
			if ask().status == http.StatusTooManyRequests {
				return true
			}
		}
		return false
	}
	for name, ask := range ways {
		if !counted(ask) {
			t.Errorf("%s is not counted", name)
		}
	}
	remote.Store("192.0.2.2:1")
	if got := ways["describe"](); got.status != http.StatusOK {
		t.Errorf("another address: %d", got.status)
	}
	remote.Store("127.0.0.1:1")
	for range 700 {
		if got := ways["describe"](); got.status != http.StatusOK {
			t.Fatal("from this machine:", got.status)
		}
	}
}
