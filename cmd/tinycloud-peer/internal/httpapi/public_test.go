package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

// public returns an owner whose Space anyone may read.
func (n *node) public(seed string) *owner {
	n.t.Helper()
	o := n.owner(seed)
	o.space = o.wallet.Space("public")
	if got := n.post("/delegate", o.wallet.SignHost(o.space, n.hostDID(o.space))); got.status != 200 {
		n.t.Fatalf("host: %d %s", got.status, got.body)
	}
	o.proof = o.delegate(o.session, captest.Caps{o.space.String() + "/kv": kvAbilities})
	return o
}

func (o *owner) read(method, path string, header map[string]string) answer {
	o.n.t.Helper()
	return o.n.do(o.n.request(method, "/public/"+o.space.String()+path, "", header, nil))
}

func patient(_ *capstore.Options, o *httpapi.Options) { o.CORS, o.Burst = false, 1000 }

func TestPublicGet(t *testing.T) {
	n := newNode(t, patient)
	o := n.public("public")
	value := pattern(1<<20 + 1)
	tag := `"blake3-` + tinycloud.Sum([]byte(value)).String() + `"`
	o.put("a/b", value, map[string]string{
		"Content-Type": "text/x", "Content-Language": "en", "Content-Disposition": "attachment", "X-Tinycloud-Meta-A": "1",
	}).want(t, "put", 200, "")
	headers := map[string]string{
		"ETag": tag, "Cache-Control": "public, max-age=60", "Content-Type": "text/x", "Content-Language": "en",
		"Content-Disposition": "", "X-Tinycloud-Meta-A": "", "Access-Control-Allow-Origin": "*",
		"Access-Control-Allow-Methods": "GET, HEAD, OPTIONS", "Access-Control-Allow-Headers": "If-None-Match",
		"Access-Control-Expose-Headers": "ETag, Content-Type, Content-Length",
		"Content-Security-Policy":       "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff",
	}
	verify := func(what string, got answer, status, length int) {
		t.Helper()
		if got.status != status || len(got.body) != length {
			t.Errorf("%s: %d, %d bytes", what, got.status, len(got.body))
		}
		for name, want := range headers {
			if v := got.header.Get(name); v != want {
				t.Errorf("%s: %s: %q, want %q", what, name, v, want)
			}
		}
	}
	got := o.read("GET", "/kv/a/b", nil)
	if verify("get", got, 200, len(value)); got.body != value {
		t.Error("another value")
	}
	verify("escaped", o.read("GET", "/kv/a%2Fb", nil), 200, len(value))
	head := o.read("HEAD", "/kv/a/b", nil)
	if verify("head", head, 200, 0); head.header.Get("Content-Length") != fmt.Sprint(len(value)) {
		t.Error(head.header)
	}
	part := o.read("GET", "/kv/a/b", map[string]string{"Range": "bytes=3-5"})
	if verify("range", part, 206, 3); part.body != value[3:6] || part.header.Get("Content-Range") != fmt.Sprintf("bytes 3-5/%d", len(value)) {
		t.Errorf("range: %q %v", part.body, part.header)
	}
	verify("another tag", o.read("GET", "/kv/a/b", map[string]string{"If-None-Match": `"other"`}), 200, len(value))
	delete(headers, "Content-Type")
	verify("the same tag", o.read("GET", "/kv/a/b", map[string]string{"If-None-Match": tag}), 304, 0)

	o.read("GET", "/kv/a", nil).want(t, "missing", 404, "Key not found")
	o.read("GET", "/kv/%ff", nil).want(t, "no text", 400, "Invalid key")
	o.read("POST", "/kv/a/b", nil).want(t, "post", 404, "The requested resource could not be found.")
	o.read("GET", "/sql/a", nil).want(t, "another service", 404, "The requested resource could not be found.")
	if preflight := o.read("OPTIONS", "/kv/a/b", nil); preflight.status != 204 || preflight.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("preflight: %d %v", preflight.status, preflight.header)
	}
	must(t, n.blocks.Delete(t.Context(), o.space, tinycloud.Sum([]byte(value))))
	if away := o.read("GET", "/kv/a/b", nil); away.status != 503 || away.header.Get("Cache-Control") != "" {
		t.Errorf("value that isn't here: %d %v", away.status, away.header)
	}
}

func TestPublicList(t *testing.T) {
	n := newNode(t, patient)
	o := n.public("public")
	o.read("GET", "/kv", nil).want(t, "empty", 200, "[]")
	for _, key := range []string{"a/1", "a/2", "b"} {
		o.put(key, "v", nil).want(t, "put", 200, "")
	}
	o.read("GET", "/kv", nil).want(t, "all", 200, `["a/1","a/2","b"]`)
	got := o.read("GET", "/kv?prefix=a%2F", nil)
	if got.want(t, "prefix", 200, `["a/1","a/2"]`); got.header.Get("Cache-Control") != "public, max-age=60" {
		t.Error(got.header)
	}
	o.read("HEAD", "/kv", nil).want(t, "head", 200, "")
	o.read("GET", "/kv?prefix=%ff", nil).want(t, "no text", 400, "Invalid prefix")
}

func TestNotPublic(t *testing.T) {
	n := newNode(t, patient)
	o := n.owner("private")
	o.put("k", "secret", nil).want(t, "put", 200, "")
	for _, path := range []string{"/kv/k", "/kv", "/kv/missing"} {
		o.read("GET", path, nil).want(t, path, 403, "Not a public space")
	}
	n.do(n.request("GET", "/public/nonsense/kv/k", "", nil, nil)).want(t, "no Space", 400, "Invalid space ID")
	o.space = captest.NewWallet("nobody").Space("public")
	o.read("GET", "/kv/k", nil).want(t, "not hosted", 404, "Key not found")
	o.read("GET", "/kv", nil).want(t, "list of what isn't hosted", 200, "[]")
}

func TestPublicRate(t *testing.T) {
	n := newNode(t, func(_ *capstore.Options, o *httpapi.Options) { o.RatePerMinute, o.Burst = 1, 3 })
	var remote atomic.Value
	handler := n.api.Handler()
	remote.Store("192.0.2.1:1000")
	n.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = remote.Load().(string)
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(n.server.Close)
	o := n.public("public")
	for i := range 3 {
		o.read("GET", "/kv/k", nil).want(t, fmt.Sprint("read ", i), 404, "Key not found")
	}
	remote.Store("192.0.2.1:1001")
	got := o.read("GET", "/kv", nil)
	if got.want(t, "too many", 429, "Rate limit exceeded"); got.header.Get("Retry-After") == "" {
		t.Error(got.header)
	}
	o.keys("", nil) // invocations aren't counted
	for _, addr := range []string{"192.0.2.2:1", "[2001:db8::1]:1"} {
		remote.Store(addr)
		for range 3 {
			o.read("GET", "/kv/k", nil).want(t, addr, 404, "Key not found")
		}
	}
	remote.Store("[2001:db8::ffff]:1")
	o.read("GET", "/kv/k", nil).want(t, "the same /64", 429, "Rate limit exceeded")
	remote.Store("[::ffff:192.0.2.1]:1")
	o.read("GET", "/kv/k", nil).want(t, "IPv4 written as IPv6", 429, "Rate limit exceeded")
	o.read("OPTIONS", "/kv/k", nil).want(t, "preflight", 204, "")
}

// A public Space that waits for the history of its other hosts is not shown as an empty one.
func TestPublicJoining(t *testing.T) {
	n := newNode(t, patient)
	o := n.public("public")
	o.read("GET", "/kv/a", nil).want(t, "before", 404, "Key not found")
	if err := n.store.AddJoin(t.Context(), o.space, []string{"/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWSkAvi2RawVh4aconMCWL5RkKVDZ8fJ5jx8pxJHx3NSG7"}, false); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/kv/a", "/kv"} {
		got := o.read("GET", path, nil)
		if got.status != 503 || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
	}
}
