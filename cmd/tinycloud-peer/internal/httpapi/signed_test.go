package httpapi_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/tickets"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

var jsonType = map[string]string{"Content-Type": "application/json"}

// ask asks for a signed URL with a token.
func (o *owner) ask(token, body string) answer {
	o.n.t.Helper()
	return o.n.do(o.n.request(http.MethodPost, "/signed/kv", token, jsonType, strings.NewReader(body)))
}

// issue returns the signed URL of a key; more are members of the request, each after a comma.
func (o *owner) issue(key, more string) issued {
	o.n.t.Helper()
	return o.urlOf(o.ask(o.token("kv/"+key, "tinycloud.kv/get"), o.signedBody(key, more)))
}

func (o *owner) urlOf(got answer) (url issued) {
	o.n.t.Helper()
	if err := json.Unmarshal([]byte(got.body), &url); err != nil || got.status != 200 || !ticketForm.MatchString(url.TicketID) ||
		url.URL != "/signed/kv/"+url.TicketID {
		o.n.t.Fatalf("signed URL: %d %s", got.status, got.body)
	}
	return url
}

func (o *owner) signedBody(key, more string) string {
	return fmt.Sprintf(`{"space":%q,"path":%q%s}`, o.space, key, more)
}

func (n *node) fetch(method, path string, header map[string]string) answer {
	n.t.Helper()
	return n.do(n.request(method, path, "", header, nil))
}

func tagOf(value string) string { return `"blake3-` + tinycloud.Sum([]byte(value)).String() + `"` }

func TestSignedRead(t *testing.T) {
	n := newNode(t)
	o := n.owner("signed")
	value := pattern(1<<20 + 1)
	tag := tagOf(value)
	o.put("a/b%20c", value, map[string]string{
		"Content-Type": "image/png", "Content-Disposition": "inline", "X-Tinycloud-Meta-A": "1",
	}).want(t, "put", 200, "")
	url := o.issue("a/b%20c", "")
	stored := map[string]string{
		"Content-Type": "image/png", "Content-Disposition": "inline", "X-Tinycloud-Meta-A": "1",
		"ETag": tag, "Cache-Control": "private, no-store", "Accept-Ranges": "bytes",
		"Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff",
	}
	for _, tt := range []struct {
		name, method string
		header       map[string]string
		status       int
		body         string
		length       int
		part         string
	}{
		{name: "whole", status: 200, body: value},
		{name: "head", method: "HEAD", status: 200, length: len(value)},
		{name: "head of a range", method: "HEAD", header: map[string]string{"Range": "bytes=0-1"}, status: 200, length: len(value)},
		{name: "range", header: map[string]string{"Range": "bytes=5-9"}, status: 206, body: value[5:10], part: "bytes 5-9/1048577"},
		{name: "open range", header: map[string]string{"Range": "bytes=1048570-"}, status: 206, body: value[1048570:], part: "bytes 1048570-1048576/1048577"},
		{name: "If-Range", header: map[string]string{"Range": "bytes=0-0", "If-Range": tag}, status: 206, body: value[:1], part: "bytes 0-0/1048577"},
		{name: "weak If-Range", header: map[string]string{"Range": "bytes=0-0", "If-Range": "W/" + tag}, status: 200, body: value},
		{name: "malformed range", header: map[string]string{"Range": "bytes=x"}, status: 200, body: value},
		{name: "another tag", header: map[string]string{"If-None-Match": `"other"`}, status: 200, body: value},
	} {
		method := tt.method
		if method == "" {
			method, tt.length = "GET", len(tt.body)
		}
		got := n.fetch(method, url.URL, tt.header)
		if got.status != tt.status || got.body != tt.body || got.header.Get("Content-Length") != fmt.Sprint(tt.length) ||
			got.header.Get("Content-Range") != tt.part {
			t.Errorf("%s: %d, %d bytes, %v", tt.name, got.status, len(got.body), got.header)
		}
		for name, want := range stored {
			if v := got.header.Get(name); v != want {
				t.Errorf("%s: %s: %q, want %q", tt.name, name, v, want)
			}
		}
	}
	n.signedEdges(t, o, url.URL, value)
}

// signedEdges asks for what is answered without the value.
func (n *node) signedEdges(t *testing.T, o *owner, url, value string) {
	t.Helper()
	tag := tagOf(value)
	for _, list := range []string{"*", tag, "W/" + tag, `"x", ` + tag} {
		got := n.fetch("GET", url, map[string]string{"If-None-Match": list, "Range": "bytes=0-1"})
		if got.want(t, list, 304, ""); got.header.Get("ETag") != tag || got.header.Get("Cache-Control") != "private, no-store" {
			t.Error(got.header)
		}
	}
	beyond := n.fetch("GET", url, map[string]string{"Range": "bytes=1048577-"})
	if beyond.want(t, "beyond", 416, ""); beyond.header.Get("Content-Range") != "bytes */1048577" || beyond.header.Get("X-Tinycloud-Meta-A") != "" {
		t.Error(beyond.header)
	}
	n.fetch("POST", url, nil).want(t, "post", 404, "The requested resource could not be found.")
	must(t, n.blocks.Delete(t.Context(), o.space, tinycloud.Sum([]byte(value))))
	if away := n.fetch("GET", url, nil); away.status != 503 || away.header.Get("Retry-After") == "" {
		t.Errorf("value that isn't here: %d %v", away.status, away.header)
	}
}

func TestSignedContent(t *testing.T) {
	n := newNode(t)
	o := n.owner("content")
	o.put("k", "one", nil).want(t, "put", 200, "")
	url := o.issue("k", "")
	two := strings.Trim(tagOf("two"), `"`)
	bound := o.issue("k", `,"content_hash":"`+two+`","etag":"`+strings.ReplaceAll(tagOf("two"), `"`, `\"`)+`"`)
	const changed = "signed URL content hash does not match"
	n.fetch("GET", url.URL, nil).want(t, "as issued", 200, "one")
	n.fetch("GET", bound.URL, nil).want(t, "bound to another value", 412, changed)
	o.put("k", "two", nil).want(t, "put", 200, "")
	n.fetch("GET", url.URL, nil).want(t, "changed", 412, changed)
	n.fetch("GET", bound.URL, nil).want(t, "bound to this value", 200, "two")
	o.invoke(nil, "kv/k", "tinycloud.kv/del").want(t, "delete", 200, "")
	n.fetch("GET", url.URL, nil).want(t, "gone", 404, "Key not found")
	o.ask(o.token("kv/k", "tinycloud.kv/get"), o.signedBody("k", "")).want(t, "issue for no key", 404, "Key not found")
	o.issue("k", `,"contentHash":"`+strings.TrimPrefix(two, "blake3-")+`"`) // a key that is still to be written
}

func TestSignedRequest(t *testing.T) {
	n := newNode(t)
	o := n.owner("request")
	o.put("k", "v", nil).want(t, "put", 200, "")
	const digest, scope = "contentHash must be a blake3 hex digest", "signed URL scope is not authorized"
	hash := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		name, body string
		status     int
		text       string
	}{
		{"maxUses", o.signedBody("k", `,"maxUses":1`), 400, "maxUses is not supported for signed KV URLs yet"},
		{"max_uses", o.signedBody("k", `,"max_uses":0`), 400, "maxUses is not supported for signed KV URLs yet"},
		{"no Space", `{"path":"k"}`, 400, "Invalid space ID"},
		{"bad Space", `{"space":"x","path":"k"}`, 400, "Invalid space ID"},
		{"no path", fmt.Sprintf(`{"space":%q}`, o.space), 400, "Invalid path"},
		{"bad path", o.signedBody("a?b", ""), 400, "Invalid path"},
		{"path of control characters", fmt.Sprintf(`{"space":%q,"path":"a\u0000"}`, o.space), 400, "Invalid path"},
		{"short hash", o.signedBody("k", `,"contentHash":"blake3-ab"`), 400, digest},
		{"no hex", o.signedBody("k", `,"contentHash":"`+strings.Repeat("xy", 32)+`"`), 400, digest},
		{"half quoted", o.signedBody("k", `,"etag":"\"`+hash+`"`), 400, digest},
		{"weak tag", o.signedBody("k", `,"etag":"W/\"blake3-`+hash+`\""`), 400, digest},
		{"two hashes", o.signedBody("k", `,"contentHash":"`+hash+`","etag":"`+strings.Repeat("ac", 32)+`"`), 400, "contentHash and ETag must identify the same object"},
		{"another key", o.signedBody("kk", ""), 403, scope},
		{"below the key", o.signedBody("k/x", ""), 404, "Key not found"},
		{"another Space", fmt.Sprintf(`{"space":%q,"path":"k"}`, captest.NewWallet("other").Space("default")), 403, scope},
		{"too long", o.signedBody("k", `,"x":"`+strings.Repeat("x", 64<<10)+`"`), 413, "Request body exceeds the limit of 65536 bytes"},
		{"no JSON", `{`, 400, "Invalid signed URL request: not JSON"},
		{"no object", `[]`, 400, "Invalid signed URL request: not a JSON object"},
		{"nothing", ``, 400, "Invalid signed URL request: not a JSON object"},
		{"more", o.signedBody("k", "") + "{}", 400, "Invalid signed URL request: more than a JSON object"},
		{"twice", o.signedBody("k", `,"path":"k"`), 400, `Invalid signed URL request: a member stands twice: "path"`},
		{"twice, escaped", o.signedBody("k", `,"p\u0061th":"k"`), 400, `Invalid signed URL request: a member stands twice: "path"`},
		{"in both spellings", o.signedBody("k", `,"ttlSeconds":1,"ttl_seconds":1`), 400, `Invalid signed URL request: a member stands twice: "ttlSeconds"`},
		{"negative", o.signedBody("k", `,"ttlSeconds":-1`), 400, "Invalid signed URL request: ttlSeconds must be a whole number of seconds"},
		{"fraction", o.signedBody("k", `,"ttlSeconds":1.5`), 400, "Invalid signed URL request: ttlSeconds must be a whole number of seconds"},
		{"text for a number", o.signedBody("k", `,"ttlSeconds":"1"`), 400, "Invalid signed URL request: ttlSeconds must be a whole number of seconds"},
		{"number for a text", fmt.Sprintf(`{"space":%q,"path":1}`, o.space), 400, "Invalid signed URL request: path must be a string"},
		{"not UTF-8", o.signedBody("k", ",\"x\":\"\xff\""), 400, "Invalid signed URL request: not UTF-8"},
	} {
		o.ask(o.token("kv/k", "tinycloud.kv/get"), tt.body).want(t, tt.name, tt.status, tt.text)
	}
}

func TestSignedAuthority(t *testing.T) {
	n := newNode(t)
	o := n.owner("authority")
	o.put("k", "v", nil).want(t, "put", 200, "")
	const scope = "signed URL scope is not authorized"
	o.issue("k", `,"Path":"other","x":{"space":[1]},"ttlSeconds":null,"maxUses":null,"etag":null`)
	o.ask(o.token("kv/k", "tinycloud.kv/metadata"), o.signedBody("k", "")).want(t, "another ability", 403, scope)
	o.ask(o.token("kv", "tinycloud.kv/get", "kv/k", "tinycloud.kv/list"), o.signedBody("k", "")).wantStatus(t, "the whole service", 200)
	o.ask("", "{}").want(t, "no token", 401, "The request requires user authentication.")
	stranger := captest.NewSession("stranger").Invoke(captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/get"}}, Proofs: o.proofs(),
	})
	o.ask(stranger, o.signedBody("k", "")).want(t, "a stranger", 401, "Unauthorized Invoker")
	token := o.token("kv/k", "tinycloud.kv/get")
	o.ask(token[:len(token)-8]+"AAAAAAAA", o.signedBody("k", "")).want(t, "forged", 401, "Failed to verify signature")
	for _, contentType := range []string{"", "text/plain", "application/jsonx", ";"} {
		r := n.request("POST", "/signed/kv", token, map[string]string{"Content-Type": contentType}, strings.NewReader(o.signedBody("k", "")))
		n.do(r).want(t, "type "+contentType, 400, "Content-Type must be application/json")
	}
	r := n.request("POST", "/signed/kv", token, map[string]string{"Content-Type": "Application/JSON; charset=utf-8"}, strings.NewReader(o.signedBody("k", "")))
	n.do(r).wantStatus(t, "type with parameters", 200)
}

func (a answer) wantStatus(t *testing.T, what string, status int) {
	t.Helper()
	if a.status != status {
		t.Errorf("%s: got %d %q, want %d", what, a.status, a.body, status)
	}
}

func TestSignedHostileIDs(t *testing.T) {
	n := newNode(t)
	o := n.owner("hostile")
	o.put("k", "v", nil).want(t, "put", 200, "")
	id := o.issue("k", "").TicketID
	last := map[bool]string{true: "B", false: "A"}[strings.HasSuffix(id, "A")]
	for _, text := range []string{
		"unknown", strings.Repeat("A", 43), id[:42], id + "A", id + "=", id + "%3D", id[:42] + "%0A", id + "%0A", "%00", "..", "%2e%2e", id[:42] + last,
		strings.ToUpper(id), strings.Repeat("A", 4000), "%27%20OR%201=1", id + "%2F", "%" + fmt.Sprintf("%x", id[0]) + id[1:],
	} {
		n.fetch("GET", "/signed/kv/"+text, nil).want(t, text, 401, "signed URL ticket not found")
	}
	n.fetch("GET", "/signed/kv/"+id+"?x=1", nil).want(t, "a query", 200, "v")
	n.fetch("GET", "/signed/kv/"+id+"/", nil).want(t, "a slash", 404, "The requested resource could not be found.")
}

// TestNotModifiedFraming reads the bytes of a 304 and goes on with its connection.
func TestNotModifiedFraming(t *testing.T) {
	n := newNode(t)
	o := n.owner("framing")
	o.put("k", "value", map[string]string{"Content-Type": "text/x"}).want(t, "put", 200, "")
	url := o.issue("k", "")
	c, r := n.dial()
	send := func(target, method, token string) {
		t.Helper()
		authorization := ""
		if token != "" {
			authorization = "Authorization: " + token + "\r\n"
		}
		_, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: h\r\n%sIf-None-Match: *\r\nContent-Length: 0\r\n\r\n", method, target, authorization)
		must(t, err)
	}
	for range 2 {
		send("/invoke", "POST", o.token("kv/k", "tinycloud.kv/get"))
		head := headOf(t, r)
		if !strings.HasPrefix(head, "http/1.1 304 ") || strings.Count(head, "\r\ncontent-type: text/x\r\n") != 1 ||
			strings.Count(head, "\r\ncontent-length: 0\r\n") != 1 || strings.Contains(head, "\r\nconnection:") || strings.Contains(head, "\r\ntransfer-encoding:") {
			t.Fatalf("%q", head)
		}
		send(url.URL, "GET", "")
		if head = headOf(t, r); !strings.HasPrefix(head, "http/1.1 304 ") || strings.Contains(head, "content-length: 0") {
			t.Fatalf("%q", head)
		}
	}
	_, err := fmt.Fprintf(c, "GET /signed/kv/%s HTTP/1.1\r\nHost: h\r\n\r\n", url.TicketID)
	must(t, err)
	resp, err := http.ReadResponse(r, nil)
	must(t, err)
	defer resp.Body.Close() //nolint:errcheck // the test ends
	if resp.StatusCode != 200 || resp.ContentLength != 5 {
		t.Errorf("next request: %s, %d bytes", resp.Status, resp.ContentLength)
	}
}

// headOf reads up to the empty line, in lower case: nothing may follow it.
func headOf(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		must(t, err)
		if b.WriteString(line); line == "\r\n" {
			return strings.ToLower(b.String())
		}
	}
}

func FuzzSignedRequest(f *testing.F) {
	const space = `"space":"tinycloud:pkh:eip155:1:0x4d1aC3e37c0157e3532424463Da9EB38E22a5a70:default"`
	for _, body := range []string{
		`{` + space + `,"path":"k"}`, `{` + space + `,"path":"k","ttl_seconds":60,"content_hash":"` + strings.Repeat("ab", 32) + `"}`,
		`{` + space + `,"path":"k","etag":"\"blake3-` + strings.Repeat("ab", 32) + `\"","x":[{}]}`, `{"path":"a","path":"b"}`, `{`, `[]`, `{}{}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		request, err := httpapi.ParseSigned(body)
		if err != nil {
			if status, _ := httpapi.Verdict(err); status != 400 {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		// What is accepted reads the same to a decoder that takes the last of several members.
		var seen struct{ Space, Path string }
		exact := map[string]json.RawMessage{}
		must(t, json.Unmarshal(body, &exact))
		_ = json.Unmarshal(exact["space"], &seen.Space)
		_ = json.Unmarshal(exact["path"], &seen.Path)
		space, err := tinycloud.ParseSpaceID(seen.Space)
		if err != nil || space != request.Space || seen.Path != request.Key || request.Life < 0 || request.Life > tickets.MaxLife {
			t.Errorf("%q: %+v", body, request)
		}
	})
}
