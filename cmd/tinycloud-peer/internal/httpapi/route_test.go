package httpapi_test

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

// dial opens a connection on which a test writes what no client would.
func (n *node) dial() (net.Conn, *bufio.Reader) {
	n.t.Helper()
	c, err := net.Dial("tcp", n.server.Listener.Addr().String())
	must(n.t, err)
	n.t.Cleanup(func() { _ = c.Close() })
	return c, bufio.NewReader(c)
}

// raw sends bytes and returns the answer's status and headers.
func (n *node) raw(request string) *http.Response {
	n.t.Helper()
	c, r := n.dial()
	_, err := c.Write([]byte(request))
	must(n.t, err)
	resp, err := http.ReadResponse(r, nil)
	must(n.t, err)
	must(n.t, resp.Body.Close())
	return resp
}

func TestNoRedirects(t *testing.T) {
	n := newNode(t)
	for target, want := range map[string]int{
		"/info": 200, "/version": 200, "/healthz": 200, "/health": 200, "/info?x=1": 200,
		"/": 404, "//": 404, "//info": 404, "/info/": 404, "/info//": 404, "/./info": 404, "/x/../info": 404, "/%2e%2e/info": 404,
		"/%69nfo": 404, "/info%2F": 404, "/peer/generate": 404, "/peer/generate/": 400, "/peer/generate/a/b": 404,
		"/peer/generate/a%2Fb": 400, "/peer/generate/%00": 400, "/peer//generate/x": 404, "/INFO": 404,
		"/invoke": 404, "/delegate": 404, "/revoke": 404, "/signed": 404, "/signed/kv": 404, "/signed/kv/": 401, "/signed/kv/x": 401, "/signed/kv/x/y": 404, "/signed//kv/x": 404,
	} {
		resp := n.raw("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")
		if resp.StatusCode != want || resp.Header.Get("Location") != "" {
			t.Errorf("GET %s: %s, want %d", target, resp.Status, want)
		}
	}
}

func TestMethods(t *testing.T) {
	n := newNode(t)
	const unknown = "The requested resource could not be found."
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"POST", "/info", 404, unknown},
		{"PUT", "/invoke", 404, unknown},
		{"DELETE", "/delegate", 404, unknown},
		{"HEAD", "/invoke", 404, ""},
		{"HEAD", "/nope", 404, ""},
		{"HEAD", "/info", 200, ""},
		{"HEAD", "/healthz", 200, ""},
		{"OPTIONS", "/invoke", 200, ""},
		{"OPTIONS", "/.well-known/x", 200, ""},
		{"OPTIONS", "/any//where/", 200, ""},
		{"GET", "/nope", 404, unknown},
		{"GET", "/info", 200, `{"protocol":1,"version":"test","features":["kv","delegation","sharing","hooks","signed-urls"],"nodeId":"did:key:zNode","inTEE":false}`},
		{"POST", "/invoke", 401, "The request requires user authentication."},
	} {
		got := n.do(n.request(tt.method, tt.path, "", nil, nil))
		got.want(t, tt.method+" "+tt.path, tt.status, tt.body)
		if tt.method == "HEAD" && tt.path == "/info" && got.header.Get("Content-Length") != "133" {
			t.Errorf("HEAD /info: length %s", got.header.Get("Content-Length"))
		}
		corsHeaders(t, got.header, true)
	}
}

func corsHeaders(t *testing.T, h http.Header, on bool) {
	t.Helper()
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":      "*",
		"Access-Control-Allow-Methods":     "POST, PUT, GET, OPTIONS, DELETE",
		"Access-Control-Expose-Headers":    "*, Authorization",
		"Access-Control-Allow-Headers":     "*, Authorization",
		"Access-Control-Allow-Credentials": "true",
	} {
		if !on {
			want = ""
		}
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN", "Permissions-Policy": "interest-cohort=()",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	n := newNode(t)
	o := n.owner("headers")
	o.put("k", "v", nil).want(t, "put", 200, "")
	for what, got := range map[string]answer{
		"get": o.get("k", nil), "304": o.get("k", map[string]string{"If-None-Match": "*"}), "missing": o.get("no", nil),
		"400":  o.invoke(map[string]string{"X-Tinycloud-Limit": "0"}, "kv/", "tinycloud.kv/list"),
		"list": o.invoke(nil, "kv/", "tinycloud.kv/list"),
		"501":  o.invoke(nil, "sql/db", "tinycloud.sql/read"),
	} {
		corsHeaders(t, got.header, true)
		if id := got.header.Get("TinyCloud-Trace-Id"); len(id) != 32 {
			t.Errorf("%s: trace %q", what, id)
		}
	}
	off := newNode(t, func(_ *capstore.Options, o *httpapi.Options) { o.CORS, o.TraceHeader = false, "" })
	got := off.do(off.request("OPTIONS", "/invoke", "", nil, nil))
	got.want(t, "OPTIONS without CORS", 200, "")
	corsHeaders(t, got.header, false)
}

func TestHostKey(t *testing.T) {
	n := newNode(t)
	space := captest.NewWallet("host key").Space("default")
	lower := strings.ToLower(space.String())
	for _, id := range []string{space.String(), strings.ReplaceAll(space.String(), ":", "%3A"), lower, strings.ReplaceAll(lower, ":", "%3a")} {
		n.do(n.request("GET", "/peer/generate/"+id, "", nil, nil)).want(t, id, 200, n.hostDID(space))
	}
	for _, id := range []string{"nonsense", "%zz", "tinycloud:default", space.String() + "%2Fkv"} {
		if resp := n.raw("GET /peer/generate/" + id + " HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 400 {
			t.Errorf("%s: %s", id, resp.Status)
		}
	}
}

func TestHealth(t *testing.T) {
	n := newNode(t)
	n.do(n.request("GET", "/healthz", "", nil, nil)).want(t, "running", 200, "")
	n.stop()
	n.do(n.request("GET", "/health", "", nil, nil)).want(t, "the writer has stopped", 503, "")
}

func TestPanic(t *testing.T) {
	n := newNode(t, func(_ *capstore.Options, o *httpapi.Options) {
		o.HostDID = func(tinycloud.SpaceID) string { panic("no key") }
		o.Log = nil
	})
	got := n.do(n.request("GET", "/peer/generate/"+captest.NewWallet("panic").Space("x").String(), "", nil, nil))
	got.want(t, "a handler panics", 500, "internal error")
	corsHeaders(t, got.header, true)
}

func TestMetrics(t *testing.T) {
	n := newNode(t)
	o := n.owner("metrics")
	o.put("k", "v", nil).want(t, "put", 200, "")
	o.get("k", nil).want(t, "get", 200, "v")
	o.get("missing", nil)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(n.api.Collectors()...)
	families, err := r.Gather()
	must(t, err)
	counts := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			counts[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"tinycloud_http_requests_total invoke 200": 2, "tinycloud_http_requests_total invoke 404": 1,
		"tinycloud_http_requests_total delegate 200": 2, "tinycloud_kv_put_seconds": 1, "tinycloud_kv_get_seconds": 2,
		"tinycloud_authorized_invoke_duration_seconds invoke": 3, "tinycloud_authorization_duration_seconds invoke": 3,
	} {
		if counts[name] != want {
			t.Errorf("%s: %v, want %v", name, counts[name], want)
		}
	}
}

// What is wrong with a token that cannot be read is told beside the text of the contract.
func TestReasons(t *testing.T) {
	n := newNode(t)
	for token, want := range map[string]string{
		"":               "no Authorization header, which has to be a delegation or an invocation",
		"Bearer x":       "",
		"a.b":            "",
		"!":              "",
		"a.b.c\x80\xff":  "",
		"o2FooWF0Z2Vpcg": "",
	} {
		request := "POST /invoke HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"
		if token != "" {
			request += "Authorization: " + token + "\r\n"
		}
		resp := n.raw(request + "\r\n")
		got := resp.Header.Get("TinyCloud-Error")
		if resp.StatusCode != 401 || got == "" || want != "" && got != want || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) || strings.Contains(got, "token not decodable") {
			t.Errorf("%q: %s, %q", token, resp.Status, got)
		}
	}
}
