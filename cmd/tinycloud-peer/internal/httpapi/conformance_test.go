package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

// difference is where this node is not the reference on purpose, or can't be.
type difference struct {
	why     string
	status  int               // 0: the same
	body    *string           // nil: the same
	headers map[string]string // "" is absent; others are the same
}

func text(s string) *string { return &s }

// differences by name of the exchange; numbers are those of the protocol's list of decisions. Besides, by decision 3,
// wherever the reference sends an HTML page the status is the same and the body is text; by decision 7 a get says
// Accept-Ranges; and where a listing of the reference gives as parents of a delegation that delegation itself,
// once for every token that cites it, this node gives what it cites, as both do in a chain.
var differences = map[string]difference{
	"session delegation": {
		why: "decision 4: skipped is computed again; the Space is hosted by now",
	},
	"get with a range": {
		why: "decision 7", status: 206, body: text("hello"),
		headers: map[string]string{"content-length": "5", "content-range": "bytes 0-4/15"},
	},
	"list limit 3, next page": {
		why: "decision 6: the reference repeats the first page", body: text(`["page/3","page/4","page/5"]`),
	},
	"invoke alg none": {
		why: "decision 1: alg has to fit the key", status: 401, body: text("Failed to verify signature"),
		headers: map[string]string{"etag": "", "cache-control": "", "content-type": plain, "content-length": "26"},
	},
}

const plain = "text/plain; charset=utf-8"

// TestConformance plays the scenario that was recorded at the reference, version 1.16.0, and compares every answer.
func TestConformance(t *testing.T) {
	n := newNode(t, func(_ *capstore.Options, o *httpapi.Options) {
		o.Version, o.NodeID = "1.16.0", "did:key:z6MkfhoxdzVTa6fLWMgEJNiRJomE5grMqkWyHiRbU9Tt7mAq"
		o.Features = []string{"kv", "delegation", "sharing", "sql", "hooks", "signed-urls", "encryption"}
	})
	tr := newTranslation(t)
	unused := len(differences)
	for _, e := range readRecording(t) {
		if e.Name == "public session" {
			tr.hostPublic(n, e)
		}
		t.Run(e.Name, func(t *testing.T) {
			got := n.do(tr.request(n, e))
			tr.learn(e, got)
			d, ok := differences[e.Name]
			if ok {
				unused--
			}
			compare(t, tr, e, d, got)
		})
	}
	if unused != 0 {
		t.Errorf("%d differences belong to no exchange", unused)
	}
}

// hostPublic hosts the Space that the recording has as hosted without showing how.
func (tr *translation) hostPublic(n *node, e exchange) {
	wallet := tr.wallets[strings.Split(e.Signed, "\n")[1]]
	space := wallet.Space("public")
	if got := n.post("/delegate", wallet.SignHost(space, n.hostDID(space))); got.status != http.StatusOK {
		tr.t.Fatalf("host the public Space: %d %s", got.status, got.body)
	}
}

func (tr *translation) request(n *node, e exchange) *http.Request {
	body := tr.live(e.Body)
	if e.BodyBase64 != "" {
		b, err := base64.StdEncoding.DecodeString(e.BodyBase64)
		must(tr.t, err)
		body = string(b)
	}
	headers := map[string]string{}
	for k, v := range e.Headers {
		headers[k] = tr.live(v)
	}
	return n.request(e.Method, tr.live(e.Path), tr.token(e), headers, strings.NewReader(body))
}

// learn takes from two answers what the node chose: CIDs, the host's key, cursors, tickets.
func (tr *translation) learn(e exchange, got answer) {
	var recorded, live struct{ CID string }
	if json.Unmarshal([]byte(e.Reply.Body), &recorded) == nil && json.Unmarshal([]byte(got.body), &live) == nil && recorded.CID != "" {
		tr.pair(recorded.CID, live.CID)
	}
	if e.Name == "host key" {
		tr.pair(e.Reply.Body, got.body)
	}
	tr.learnTicket(e, got)
	const cursor = "x-tinycloud-next-cursor"
	if c := got.header.Get(cursor); c != "" && e.Reply.Headers[cursor] != "" {
		tr.pair(e.Reply.Headers[cursor], c)
	}
}

func compare(t *testing.T, tr *translation, e exchange, d difference, got answer) {
	want := e.Reply
	if d.status != 0 {
		want.Status = d.status
	}
	if got.status != want.Status {
		t.Errorf("status %d, want %d; body %.200q", got.status, want.Status, got.body)
	}
	wantHeaders := map[string]string{}
	for k, v := range want.Headers {
		wantHeaders[k] = v
	}
	for k, v := range d.headers {
		wantHeaders[k] = v
		if v == "" {
			delete(wantHeaders, k)
		}
	}
	if diff := cmp.Diff(wantHeaders, keptHeaders(tr, got.header, want.Page, wantHeaders)); diff != "" {
		t.Errorf("headers, - reference, + here:\n%s", diff)
	}
	switch {
	case d.body != nil:
		got.want(t, "body", got.status, *d.body)
	case want.Page:
		if ct := got.header.Get("Content-Type"); ct != plain || got.body == "" {
			t.Errorf("in place of a page: %q %q", ct, got.body)
		}
	case want.Base64:
		if b := base64.StdEncoding.EncodeToString([]byte(got.body)); b != want.Body {
			t.Errorf("body %s, want %s", b, want.Body)
		}
	case strings.HasPrefix(want.Headers["content-type"], "application/json") && want.Status == http.StatusOK:
		if diff := cmp.Diff(parsed(t, want.Body), parsed(t, tr.back(got.body))); diff != "" {
			t.Errorf("JSON, - reference, + here:\n%s", diff)
		}
	default:
		got.want(t, "body", got.status, tr.live(want.Body))
	}
}

var compared = []string{
	"Etag", "Content-Type", "Cache-Control", "Content-Language", "Content-Range",
}

// optional headers may be here though the reference doesn't send them.
var optional = []string{"Content-Length", "Accept-Ranges"}

// keptHeaders returns the headers that the recording keeps, translated back.
func keptHeaders(tr *translation, h http.Header, page bool, want map[string]string) map[string]string {
	out := map[string]string{}
	for name, values := range h {
		keep := slices.Contains(compared, name) || strings.HasPrefix(name, "X-Tinycloud-")
		if slices.Contains(optional, name) {
			_, keep = want[strings.ToLower(name)]
		}
		if page && strings.HasPrefix(name, "Content-") {
			keep = false
		}
		if keep {
			out[strings.ToLower(name)] = tr.back(strings.Join(values, ","))
		}
	}
	return out
}

// parsed decodes JSON. The tokens of a listing are this scenario's own, and the order of capabilities in the
// reference's is its database's.
func parsed(t *testing.T, body string) any {
	t.Helper()
	var v any
	must(t, json.Unmarshal([]byte(body), &v))
	switch v := v.(type) {
	case map[string]any:
		for _, item := range v {
			if d, ok := item.(map[string]any); ok {
				listed(d)
				delete(d, "parents")
			}
		}
	case []any:
		for _, item := range v {
			if d, ok := item.(map[string]any); ok {
				listed(d)
				d["parents"] = len(d["parents"].([]any))
			}
		}
	}
	return v
}

func listed(delegation map[string]any) {
	delete(delegation, "raw")
	slices.SortFunc(delegation["capabilities"].([]any), func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}
