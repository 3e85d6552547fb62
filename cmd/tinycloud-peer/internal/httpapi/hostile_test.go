package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

func TestTokens(t *testing.T) {
	n := newNode(t)
	long := strings.Repeat("A", 200<<10)
	for what, token := range map[string]string{
		"none": "", "junk": "junk", "dots": "a.b.c", "Bearer": "Bearer a.b.c", "long": long, "long JWT": long + "." + long + "." + long,
		"many dots": strings.Repeat(".", 1000), "padding": "====", "a delegation's form": "oWFh",
	} {
		for _, path := range []string{"/invoke", "/delegate", "/revoke"} {
			n.post(path, token).want(t, path+" "+what, 401, "The request requires user authentication.")
		}
	}
	if got := n.post("/invoke", strings.Repeat("A", 2<<20)); got.status != 431 {
		t.Errorf("header of 2 MiB: %d", got.status)
	}
}

func TestOthersSpaces(t *testing.T) {
	n := newNode(t)
	o, other := n.owner("alice"), n.owner("bob")
	uri := other.space.String() + "/kv/k"
	got := n.post("/invoke", o.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{uri: {"tinycloud.kv/get"}}, Proofs: other.proofs(),
	}))
	got.want(t, "another's proof", 401, "Unauthorized Invoker")
	got = n.post("/invoke", o.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{uri: {"tinycloud.kv/get"}}, Proofs: o.proofs(),
	}))
	got.want(t, "own proof", 401, "Unauthorized Action: "+uri+" / tinycloud.kv/get")

	stranger := captest.NewWallet("stranger")
	session := captest.NewSession("stranger")
	space := stranger.Space("default")
	header := stranger.SignDelegation(captest.DelegationOptions{
		Audience: session.URI(), Caps: captest.Caps{space.String() + "/kv": kvAbilities}, Expires: time.Now().Add(time.Hour),
	})
	id := captest.ID(header)
	n.post("/delegate", header).want(t, "not hosted", 200,
		`{"cid":"`+id.EventID()+`","activated":[],"skipped":["`+space.String()+`"]}`)
	n.post("/invoke", session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{space.String() + "/kv/k": {"tinycloud.kv/get"}}, Proofs: []hash{id},
	})).want(t, "invoke there", 404, "Space not found")
}

func TestReplay(t *testing.T) {
	n := newNode(t)
	o := n.owner("replay")
	o.put("k", "v", nil).want(t, "put", 200, "")
	read := o.token("kv/k", "tinycloud.kv/get")
	n.post("/invoke", read).want(t, "get", 200, "v")
	n.post("/invoke", read).want(t, "get again", 409, "duplicate invocation")
	nothing := o.token("kv/k", "tinycloud.kv/put", "kv", "tinycloud.kv/get")
	n.post("/invoke", nothing).want(t, "put beside an operation on nothing", 200, "")
	n.post("/invoke", nothing).want(t, "put again", 409, "duplicate invocation")
	unknown := o.token("space/x", "tinycloud.space/list")
	n.post("/invoke", unknown).want(t, "what nobody implements", 200, "")
	n.post("/invoke", unknown).want(t, "again", 409, "duplicate invocation")
}

// TestRefusedTokensRemain shows that a token is used up by what it did, not by how it was sent.
func TestRefusedTokensRemain(t *testing.T) {
	n := newNode(t, func(_ *capstore.Options, o *httpapi.Options) { o.MaxBody = 100 })
	o := n.owner("refused")
	token := o.token("kv/k", "tinycloud.kv/put")
	send := func(header map[string]string, body io.Reader) answer {
		return n.do(n.request("POST", "/invoke", token, header, body))
	}
	send(map[string]string{"If-Match": "x"}, nil).want(t, "precondition", 400,
		`If-Match must be a strong TinyCloud ETag: "blake3-<64 hex characters>"`)
	const tooLarge = "Request body exceeds the limit of 100 bytes"
	send(nil, bytes.NewReader(make([]byte, 101))).want(t, "long body", 413, tooLarge)
	send(nil, io.MultiReader(bytes.NewReader(make([]byte, 101)))).want(t, "long body of unknown length", 413, tooLarge)
	send(map[string]string{"If-Match": `"blake3-` + strings.Repeat("0", 64) + `"`}, nil).want(t, "If-Match", 412, "KV precondition failed")
	send(nil, bytes.NewReader(make([]byte, 100))).want(t, "put", 200, "")
	send(nil, bytes.NewReader(make([]byte, 100))).want(t, "put again", 409, "duplicate invocation")

	list := o.token("kv/", "tinycloud.kv/list")
	n.do(n.request("POST", "/invoke", list, map[string]string{"X-Tinycloud-Limit": "no"}, nil)).want(t, "limit", 400,
		"x-tinycloud-limit must be a positive integer")
	n.post("/invoke", list).want(t, "list", 200, `["k"]`)
}

func TestConcurrentReplays(t *testing.T) {
	n := newNode(t)
	o := n.owner("race")
	for _, ability := range []string{"tinycloud.kv/put", "tinycloud.kv/list"} {
		token := o.token("kv/k", ability)
		var group sync.WaitGroup
		statuses := make(chan int, 16)
		for range cap(statuses) {
			group.Go(func() { statuses <- n.post("/invoke", token).status })
		}
		group.Wait()
		close(statuses)
		count := map[int]int{}
		for s := range statuses {
			count[s]++
		}
		if count[200] != 1 || count[409] != 15 {
			t.Errorf("%s: %v", ability, count)
		}
	}
}

// head is a put's request up to its body.
func (o *owner) head(token, headers string) string {
	return "POST /invoke HTTP/1.1\r\nHost: h\r\nAuthorization: " + token + "\r\n" + headers + "\r\n"
}

func TestBodyCutShort(t *testing.T) {
	n := newNode(t)
	o := n.owner("cut")
	for what, request := range map[string]string{
		"length": "Content-Length: 10\r\n", "chunks": "Transfer-Encoding: chunked\r\n",
	} {
		token := o.token("kv/"+what, "tinycloud.kv/put")
		c, r := n.dial()
		body := "hel"
		if what == "chunks" {
			body = "5\r\nhel"
		}
		_, err := io.WriteString(c, o.head(token, request)+body)
		must(t, err)
		must(t, c.(*net.TCPConn).CloseWrite())
		resp, err := http.ReadResponse(r, nil)
		must(t, err)
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		answer{resp.StatusCode, resp.Header, string(b)}.want(t, what, 400, "The request body ended early")
		o.get(what, nil).want(t, "what was cut short", 404, "Key not found")
		n.do(n.request("POST", "/invoke", token, nil, strings.NewReader("hello"))).want(t, "the same token", 200, "")
	}
}

func TestSlowBody(t *testing.T) {
	n := newNode(t, func(_ *capstore.Options, o *httpapi.Options) { o.Idle = 300 * time.Millisecond })
	o := n.owner("slow")
	c, r := n.dial()
	_, err := io.WriteString(c, o.head(o.token("kv/k", "tinycloud.kv/put"), "Content-Length: 10\r\n")+"hel")
	must(t, err)
	resp, err := http.ReadResponse(r, nil)
	must(t, err)
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	answer{resp.StatusCode, resp.Header, string(b)}.want(t, "no more bytes", 400, "The request body took too long")
}

// TestContinue shows that the body of a refused invocation isn't even asked for.
func TestContinue(t *testing.T) {
	n := newNode(t)
	o, other := n.owner("alice"), n.owner("bob")
	for _, tt := range []struct {
		what, token string
		want        []int
	}{
		{"admitted", o.token("kv/k", "tinycloud.kv/put"), []int{100, 200}},
		{"refused", other.session.Invoke(captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/put"}}, Proofs: o.proofs(),
		}), []int{401}},
	} {
		c, r := n.dial()
		_, err := io.WriteString(c, o.head(tt.token, "Expect: 100-continue\r\nContent-Length: 5\r\n"))
		must(t, err)
		var got []int
		for {
			resp, err := http.ReadResponse(r, nil)
			must(t, err)
			got = append(got, resp.StatusCode)
			if resp.StatusCode != 100 {
				break
			}
			_, err = io.WriteString(c, "hello")
			must(t, err)
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
}

func TestPreconditionTexts(t *testing.T) {
	n := newNode(t)
	o := n.owner("texts")
	zeros := `"blake3-` + strings.Repeat("0", 64) + `"`
	for _, tt := range []struct {
		path, ability, header, value, text string
	}{
		{"kv/k", "put", "X-Tinycloud-Expected-Version", "1", "x-tinycloud-expected-version is not a production precondition; use If-Match"},
		{"kv/k", "put", "If-None-Match", zeros, "If-None-Match only supports * for KV create"},
		{"kv/k", "del", "If-None-Match", "*", "If-None-Match: * requires exactly one non-multipart KV put"},
		{"kv/", "list", "If-None-Match", "*", "If-None-Match: * requires exactly one non-multipart KV put"},
		{"kv/k", "get", "If-Match", zeros, "If-Match requires exactly one non-multipart KV put or delete"},
		{"kv/k", "put", "If-Match", "W/" + zeros, `If-Match must be a strong TinyCloud ETag: "blake3-<64 hex characters>"`},
		{"kv/k", "put", "If-Match", "*", `If-Match must be a strong TinyCloud ETag: "blake3-<64 hex characters>"`},
		{"kv/k", "del", "If-Match", `"blake3-00"`, "If-Match must contain a 32-byte BLAKE3 digest"},
		{"kv/k", "put", "If-Match", `"blake3-` + strings.Repeat("g", 64) + `"`, "If-Match BLAKE3 digest must be hexadecimal"},
		{"kv/", "list", "X-Tinycloud-Limit", "-1", "x-tinycloud-limit must be a positive integer"},
		{"kv/", "list", "X-Tinycloud-Limit", "", "x-tinycloud-limit must be a positive integer"},
		{"kv/", "list", "X-Tinycloud-Limit", "1001", "x-tinycloud-limit must be between 1 and 1000"},
		{"kv/", "list", "X-Tinycloud-Cursor", "AAAA", "Invalid KV list cursor"},
		{"kv/k", "get", "X-Tinycloud-Max-Response-Bytes", "0", "x-tinycloud-max-response-bytes must be a positive integer"},
	} {
		got := o.invoke(map[string]string{tt.header: tt.value}, tt.path, "tinycloud.kv/"+tt.ability)
		got.want(t, tt.ability+" "+tt.header+": "+tt.value, 400, tt.text)
	}
}

// TestPagesOfLists has only lists go by what says how long a page is.
func TestPagesOfLists(t *testing.T) {
	n := newNode(t)
	o := n.owner("pages")
	for _, limit := range []string{"no", "0", "1001"} {
		header := map[string]string{"X-Tinycloud-Limit": limit}
		o.put("k", "v", header).want(t, "put, limit "+limit, 200, "")
		o.get("k", header).want(t, "get, limit "+limit, 200, "v")
		if got := o.invoke(header, "kv/", "tinycloud.kv/list"); got.status != 400 {
			t.Errorf("list, limit %s: %d %s", limit, got.status, got.body)
		}
	}
}

func TestUnsupported(t *testing.T) {
	n := newNode(t)
	o := n.owner("services")
	o.invoke(nil, "duckdb/db", "tinycloud.duckdb/read").want(t, "duckdb", 501, "DuckDB support is not enabled on this node")
	o.invoke(nil, "sql/db", "tinycloud.sql/read").want(t, "sql", 501, "SQL support is not enabled on this node")
	network := "urn:tinycloud:encryption:" + string(o.wallet.DID()) + ":default"
	proof := o.delegate(o.session, captest.Caps{network: {"tinycloud.encryption/decrypt"}})
	n.post("/invoke", o.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{network: {"tinycloud.encryption/decrypt"}}, Proofs: []hash{proof},
	})).want(t, "encryption", 501, "Encryption support is not enabled on this node")
	o.invoke(nil, "kv/a", "tinycloud.kv/get", "kv/a", "tinycloud.kv/metadata").want(t, "two outcomes", 501,
		"Multiple invocation outcomes require a homogeneous KV get or metadata batch")
	o.invoke(nil, "capabilities/other", "tinycloud.capabilities/read").want(t, "other path of capabilities", 200, "")
}
