package httpapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

const formType = "multipart/form-data; boundary=B"

// formPart writes one part; headers end with a line break.
func formPart(name, headers, body string) string {
	return "--B\r\nContent-Disposition: form-data; name=\"" + name + "\"; filename=\"blob\"\r\n" + headers + "\r\n" + body + "\r\n"
}

const formEnd = "--B--\r\n"

func (o *owner) putToken(keys ...string) string {
	var pairs []string
	for _, key := range keys {
		pairs = append(pairs, "kv/"+key, "tinycloud.kv/put")
	}
	return o.token(pairs...)
}

func (o *owner) form(token, body string) answer {
	o.n.t.Helper()
	return o.n.do(o.n.request("POST", "/invoke", token, map[string]string{"Content-Type": formType}, strings.NewReader(body)))
}

func TestBatchPut(t *testing.T) {
	n := newNode(t)
	o := n.owner("forms")
	large := pattern(1<<20 + 1)
	body := "preamble\r\n" +
		formPart("z", "Content-Type: text/x\r\nX-Tinycloud-Meta-A: 1\r\nX-Other: no\r\nAuthorization: no\r\n", "last") +
		formPart("big%2Fb", "", large) + formPart("big%2Fa", "Content-Transfer-Encoding: quoted-printable\r\n", large) +
		formPart("", "", "") + formPart("same", "", "last") + formEnd + "epilogue"
	keys := []string{"z", "big/a", "big/b", "", "same"}
	o.form(o.putToken(keys...), body).want(t, "batch", 200, `{"written":["","big/a","big/b","same","z"],"count":5}`)
	for key, value := range map[string]string{"z": "last", "big/a": large, "big/b": large, "": "", "same": "last"} {
		got := o.get(key, nil)
		if got.status != 200 || got.body != value {
			t.Errorf("%q: %d, %d bytes", key, got.status, len(got.body))
		}
		want := ""
		if key == "z" {
			want = "text/x 1"
		}
		if meta := strings.TrimSpace(got.header.Get("Content-Type") + " " + got.header.Get("X-Tinycloud-Meta-A")); meta != want {
			t.Errorf("%q: metadata %q, want %q", key, meta, want)
		}
		for _, name := range []string{"Content-Disposition", "X-Other", "Authorization"} {
			if v := got.header.Get(name); v != "" {
				t.Errorf("%q: %s: %s", key, name, v)
			}
		}
	}
	o.form(o.putToken("z"), formPart("z", "", "new")+formEnd).want(t, "one key", 200, `{"written":["z"],"count":1}`)
	o.get("z", nil).want(t, "overwritten", 200, "new")
}

func TestBatchPutReplay(t *testing.T) {
	n := newNode(t)
	o := n.owner("forms")
	token := o.putToken("a", "b")
	o.form(token, formPart("a", "", "1")+formEnd).want(t, "a part missing", 400, "Missing multipart KV parts for signed paths: b")
	o.form(token, formPart("a", "", "1")+formPart("b", "", "2")+formEnd).want(t, "the same token", 200, `{"written":["a","b"],"count":2}`)
	o.form(token, formPart("a", "", "1")+formPart("b", "", "2")+formEnd).want(t, "replay", 409, "duplicate invocation")
}

// TestHostileForms sends bodies that aren't what was signed; nothing of them may be stored.
func TestHostileForms(t *testing.T) {
	n := newNode(t, func(_ *capstore.Options, o *httpapi.Options) { o.MaxBody = 2 << 20 })
	o := n.owner("hostile")
	a, b := formPart("a", "", "1"), formPart("b", "", "2")
	large := strings.Repeat("x", 1<<20)
	for what, tt := range map[string]struct {
		body   string
		status int
		text   string
	}{
		"empty":           {"", 400, "The request body ended early"},
		"no parts":        {formEnd, 400, "Missing multipart KV parts for signed paths: a, b"},
		"part missing":    {b + formEnd, 400, "Missing multipart KV parts for signed paths: a"},
		"duplicate":       {a + b + a + formEnd, 400, "Duplicate multipart KV part for path a"},
		"duplicate large": {formPart("a", "", large) + formPart("%61", "", "") + formEnd, 400, "Duplicate multipart KV part for path a"},
		"not signed":      {a + formPart("c%2Fd", "", "3") + b + formEnd, 400, "Multipart KV part c/d is not authorized by the invocation"},
		"bad escape":      {a + formPart("b%zz", "", "3") + formEnd, 400, "Multipart KV part b%zz is not authorized by the invocation"},
		"no disposition":  {a + "--B\r\nContent-Type: text/x\r\n\r\n2\r\n" + formEnd, 400, "Multipart KV part is missing a field name"},
		"no name": {
			a + "--B\r\nContent-Disposition: form-data; filename=\"b\"\r\n\r\n2\r\n" + formEnd, 400, "Multipart KV part is missing a field name",
		},
		"no form data": {a + "--B\r\nContent-Disposition: attachment; name=\"b\"\r\n\r\n2\r\n" + formEnd, 400, "Multipart KV part is missing a field name"},
		"no end":       {a + b, 400, "The request body ended early"},
		"cut within":   {a + strings.TrimSuffix(b, "\r\n"), 400, "The request body ended early"},
		"no headers":   {a + "--B\r\nnonsense\r\n\r\n2\r\n" + formEnd, 400, "The multipart body is malformed"},
		"too large":    {formPart("a", "", large) + formPart("b", "", large) + formEnd, 413, "Request body exceeds the limit of 2097152 bytes"},
		"long metadata": {
			formPart("a", "X-Tinycloud-Meta-A: "+large[:17000]+"\r\n", "1") + b + formEnd, 413, "The headers to be stored exceed the limit of 16384 bytes",
		},
		"much metadata": {
			formPart("a", "X-Tinycloud-Meta-A: "+large+"\r\n", "1") + b + formEnd, 413, "Multipart KV part headers exceed the limit of 524288 bytes",
		},
	} {
		o.form(o.putToken("a", "b"), tt.body).want(t, what, tt.status, tt.text)
		unsized := n.request("POST", "/invoke", o.putToken("a", "b"), map[string]string{"Content-Type": formType},
			io.MultiReader(strings.NewReader(tt.body)))
		n.do(unsized).want(t, what+", chunked", tt.status, tt.text)
	}
	if keys := o.keys("", nil); len(keys) != 0 {
		t.Errorf("stored: %q", keys)
	}
}

func TestFormCutShort(t *testing.T) {
	n := newNode(t)
	o := n.owner("cut")
	c, r := n.dial()
	token := o.putToken("a", "b")
	_, err := io.WriteString(c, o.head(token, "Content-Type: "+formType+"\r\nContent-Length: 1000\r\n")+formPart("a", "", "1")+formPart("b", "", "2"))
	must(t, err)
	must(t, c.(*net.TCPConn).CloseWrite())
	resp, err := http.ReadResponse(r, nil)
	must(t, err)
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	answer{resp.StatusCode, resp.Header, string(b)}.want(t, "cut short", 400, "The request body ended early")
	if keys := o.keys("", nil); len(keys) != 0 {
		t.Errorf("stored: %q", keys)
	}
	o.form(token, formPart("a", "", "1")+formPart("b", "", "2")+formEnd).want(t, "the same token", 200, `{"written":["a","b"],"count":2}`)
}

func TestFormCapabilities(t *testing.T) {
	n := newNode(t)
	o := n.owner("forms")
	body := formPart("a", "", "1") + formPart("b", "", "2") + formEnd
	const onlyPuts = "KV batch put only accepts tinycloud.kv/put capabilities with paths"
	for what, token := range map[string]string{
		"a get beside":    o.token("kv/a", "tinycloud.kv/put", "kv/b", "tinycloud.kv/get"),
		"no path":         o.token("kv/a", "tinycloud.kv/put", "kv", "tinycloud.kv/put"),
		"another service": o.token("kv/a", "tinycloud.kv/put", "space", "tinycloud.space/list"),
	} {
		o.form(token, body).want(t, what, 400, onlyPuts)
	}
	o.n.do(n.request("POST", "/invoke", o.putToken("a", "b"), nil, strings.NewReader(body))).want(t, "no content type", 400,
		"KV batch put requires multipart/form-data")
	o.n.do(n.request("POST", "/invoke", o.putToken("a", "b"), map[string]string{"Content-Type": "multipart/form-data"},
		strings.NewReader(body))).want(t, "no boundary", 400, "Missing multipart content-type")
	conditional := map[string]string{"Content-Type": formType, "If-None-Match": "*"}
	o.n.do(n.request("POST", "/invoke", o.putToken("a"), conditional, strings.NewReader(body))).want(t, "condition", 400,
		"If-None-Match: * requires exactly one non-multipart KV put")
	second := o.wallet.Space("second")
	if got := n.post("/delegate", o.wallet.SignHost(second, n.hostDID(second))); got.status != 200 {
		t.Fatal(got.body)
	}
	proof := o.delegate(o.session, captest.Caps{second.String() + "/kv": kvAbilities})
	o.form(o.session.Invoke(captest.TokenOptions{Caps: captest.Caps{
		o.space.String() + "/kv/a": {"tinycloud.kv/put"}, second.String() + "/kv/b": {"tinycloud.kv/put"},
	}, Proofs: []tinycloud.Hash{o.proof, proof}}), body).want(t, "two Spaces", 400, "KV batch put must target one space")
}

// TestBatchPutQuota shows that a batch beyond the quota stores nothing, not even in the block store.
func TestBatchPutQuota(t *testing.T) {
	const limit = 1 << 20
	n := newNode(t, func(c *capstore.Options, _ *httpapi.Options) {
		c.Limit = func(tinycloud.SpaceID) (int64, bool) { return limit, true }
	})
	o := n.owner("quota")
	large := pattern(limit - 1)
	body := formPart("a", "", large) + formPart("b", "", "22") + formEnd
	o.form(o.putToken("a", "b"), body).want(t, "too much", 413,
		fmt.Sprintf("Write exceeds remaining storage. Used: 0 bytes, Limit: %d bytes", limit))
	if _, _, err := n.blocks.Open(t.Context(), o.space, tinycloud.Sum([]byte(large))); err == nil {
		t.Error("the large value is in the block store")
	}
	got := o.batch("get", "a", "b")
	var b batch
	must(t, json.Unmarshal([]byte(got.body), &b))
	var ok []bool
	for _, r := range b.Results {
		ok = append(ok, r.OK)
	}
	if diff := cmp.Diff([]bool{false, false}, ok); diff != "" {
		t.Error(diff)
	}
}
