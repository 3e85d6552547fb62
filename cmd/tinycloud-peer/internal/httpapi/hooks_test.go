package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

func (o *owner) hook(method, path, body string, pairs ...string) answer {
	o.n.t.Helper()
	return o.n.do(o.n.request(method, path, o.token(pairs...), map[string]string{"Content-Type": "application/json"}, strings.NewReader(body)))
}

func (o *owner) subscription(rest string) string {
	return fmt.Sprintf(`{"subscriptions":[{"space":%q,"service":"kv"%s}]}`, o.space, rest)
}

func (o *owner) ticket() string {
	o.n.t.Helper()
	got := o.hook(http.MethodPost, "/hooks/tickets", o.subscription(""), "hooks/kv", "tinycloud.hooks/subscribe")
	var ticket struct{ Ticket, ExpiresAt string }
	if err := json.Unmarshal([]byte(got.body), &ticket); err != nil || got.status != http.StatusOK {
		o.n.t.Fatalf("ticket: %d %s", got.status, got.body)
	}
	at, err := time.Parse(time.RFC3339, ticket.ExpiresAt)
	if left := time.Until(at); err != nil || left < 50*time.Second || left > 60*time.Second {
		o.n.t.Errorf("the ticket ends at %s: %v", ticket.ExpiresAt, err)
	}
	return ticket.Ticket
}

// events opens a stream and returns a function that reads its next event.
func (n *node) events(ticket, last string) (next func() (id, data string)) {
	n.t.Helper()
	r := n.request(http.MethodGet, "/hooks/events?ticket="+url.QueryEscape(ticket), "", map[string]string{"Last-Event-ID": last}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	n.t.Cleanup(cancel)
	resp, err := n.server.Client().Do(r.WithContext(ctx))
	must(n.t, err)
	n.t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		n.t.Fatalf("stream: %d %s", resp.StatusCode, got)
	}
	lines := bufio.NewScanner(resp.Body)
	return func() (id, data string) {
		n.t.Helper()
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				id = text
			}
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return id, text
			}
		}
		n.t.Fatal("the stream has ended:", lines.Err())
		return "", ""
	}
}

func TestHookEvents(t *testing.T) {
	n := newNode(t)
	o := n.owner("alice")
	ticket := o.ticket()
	next := n.events(ticket, "")
	o.put("docs/a", "1", nil).want(t, "put", 200, "")
	first, data := next()
	var e struct {
		Type, ID, Space, Service, Ability, Path, Actor, Epoch, Timestamp string
		EventIndex                                                       int
	}
	must(t, json.Unmarshal([]byte(data), &e))
	at, err := time.Parse(time.RFC3339, e.Timestamp)
	want := fmt.Sprintf(`{"type":"write","id":"%s:0","space":"%s","service":"kv","ability":"tinycloud.kv/put","path":"docs/a","actor":"%s","epoch":"%s","eventIndex":0,"timestamp":"%s"}`,
		e.Epoch, o.space, o.session.DID(), e.Epoch, e.Timestamp)
	if data != want || first != e.ID || err != nil || time.Since(at) > time.Minute {
		t.Errorf("event %s\nwant  %s", data, want)
	}
	o.invoke(nil, "kv/docs/a", "tinycloud.kv/del").want(t, "delete", 200, "")
	if _, data := next(); !strings.Contains(data, `"ability":"tinycloud.kv/del","path":"docs/a"`) {
		t.Error(data)
	}
	if _, data := n.events(ticket, first)(); !strings.Contains(data, "kv/del") {
		t.Errorf("after %s comes %s", first, data)
	}
}

func TestHookRefusals(t *testing.T) {
	n := newNode(t)
	o, other := n.owner("alice"), n.owner("bob")
	subscribe := []string{"hooks/kv", "tinycloud.hooks/subscribe"}
	post := func(body string, pairs ...string) answer {
		return o.hook(http.MethodPost, "/hooks/tickets", body, pairs...)
	}
	post(`{}`, subscribe...).want(t, "no subscription", 400, "at least one subscription is required")
	post(other.subscription(""), subscribe...).want(t, "foreign space", 403, "requested hook scope is not authorized")
	post(o.subscription(""), "hooks/kv/docs", "tinycloud.hooks/subscribe").want(t, "too wide", 403, "requested hook scope is not authorized")
	post(o.subscription(`,"pathPrefix":"/docs/a"`), "hooks/kv/docs", "tinycloud.hooks/subscribe")
	if got := post(strings.Repeat(" ", 65<<10), subscribe...); got.status != 413 {
		t.Errorf("long body: %d", got.status)
	}
	token := o.token(subscribe...)
	twice := func() answer {
		return n.do(n.request(http.MethodPost, "/hooks/tickets", token, nil, strings.NewReader(o.subscription(""))))
	}
	if got := twice(); got.status != 200 {
		t.Errorf("first: %d", got.status)
	}
	twice().want(t, "replayed", 409, "duplicate invocation")
	forged := o.token(subscribe...)
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	for name, header := range map[string]string{
		"none": "", "forged": forged, "garbage": "a.b.c",
		"unproven": captest.NewSession("mallory").Invoke(captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/hooks": {"tinycloud.hooks/subscribe"}}, Proofs: []tinycloud.Hash{o.proof},
		}),
		"expired": o.session.Invoke(captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/hooks": {"tinycloud.hooks/subscribe"}}, Proofs: []tinycloud.Hash{o.proof},
			Expires: time.Now().Add(-time.Second),
		}),
	} {
		for _, route := range []struct{ method, path string }{
			{http.MethodPost, "/hooks/tickets"},
			{http.MethodPost, "/hooks/webhooks"},
			{http.MethodGet, "/hooks/webhooks"},
			{http.MethodDelete, "/hooks/webhooks/x"},
		} {
			got := n.do(n.request(route.method, route.path, header, nil, strings.NewReader(o.subscription(""))))
			if got.status != 401 {
				t.Errorf("%s %s, token %s: %d %s", route.method, route.path, name, got.status, got.body)
			}
		}
	}
	for _, ticket := range []string{"", "x", "x.y", o.ticket() + "x"} {
		n.do(n.request(http.MethodGet, "/hooks/events?ticket="+ticket, "", nil, nil)).want(t, "ticket", 401, "invalid ticket")
	}
	for _, path := range []string{"/hooks", "/hooks/", "/hooks/webhooks/", "/hooks/webhooks/a/b", "/hooks/tickets/"} {
		if got := n.do(n.request(http.MethodPost, path, "", nil, nil)); got.status != 404 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}

func TestHookRoutesAreOptional(t *testing.T) {
	n := newNode(t)
	if got := n.do(n.request(http.MethodGet, "/info", "", nil, nil)); !strings.Contains(got.body, `"hooks"`) {
		t.Error(got.body)
	}
	bare := httpapi.New(httpapi.Options{Store: n.store}).Handler()
	for path, want := range map[string]string{"/info": `"sharing","signed-urls"],`, "/hooks/events": "could not be found"} {
		w := httptest.NewRecorder()
		bare.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("without hooks, %s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestWebhookRoutes(t *testing.T) {
	n := newNode(t)
	o, other := n.owner("alice"), n.owner("bob")
	registration := func(rest string) string {
		return fmt.Sprintf(`{"space":%q,"service":"kv","pathPrefix":"docs","abilities":[]%s}`, o.space, rest)
	}
	register := func(body string) answer {
		return o.hook(http.MethodPost, "/hooks/webhooks", body, "hooks/kv/docs", "tinycloud.hooks/register")
	}
	register(registration(`,"secret":"x"`)).want(t, "no URL", 400, "callbackUrl is required")
	register(registration(`,"callbackUrl":"https://example.com/"`)).want(t, "no secret", 400, "secret is required")
	register(registration(`,"callbackUrl":"http://example.com/","secret":"x"`)).want(t, "no TLS", 400,
		"callbackUrl must be canonical HTTPS on port 443 without userinfo or fragments")
	register(registration(`,"callbackUrl":"https://10.0.0.1/","secret":"x"`)).want(t, "private", 400, "callbackUrl is not of a public host")
	full := registration(`,"callbackUrl":"https://example.com/","secret":"x"`)
	other.hook(http.MethodPost, "/hooks/webhooks", full, "hooks/kv", "tinycloud.hooks/register").
		want(t, "stranger", 403, "requested hook scope is not authorized")
	var first struct{ ID, CreatedAt string }
	for i := range 5 {
		got := register(full)
		if got.status != 200 {
			t.Fatalf("webhook %d: %d %s", i, got.status, got.body)
		}
		if i > 0 {
			continue
		}
		must(t, json.Unmarshal([]byte(got.body), &first))
		want := fmt.Sprintf(`{"id":%q,"subscriberDid":%q,"space":%q,"service":"kv","pathPrefix":"docs","abilities":[],"callbackUrl":"https://example.com/","secretKeyId":"primary","active":true,"createdAt":%q}`,
			first.ID, o.session.DID(), o.space, first.CreatedAt)
		if got.body != want {
			t.Errorf("record %s\nwant   %s", got.body, want)
		}
	}
	if got := register(full); got.status != 429 {
		t.Errorf("sixth: %d %s", got.status, got.body)
	}
	list := func(query string, pairs ...string) (int, int) {
		got := o.hook(http.MethodGet, "/hooks/webhooks"+query, "", pairs...)
		var records []struct{ ID string }
		_ = json.Unmarshal([]byte(got.body), &records)
		return got.status, len(records)
	}
	space := url.QueryEscape(o.space.String())
	for _, tt := range []struct {
		query, path   string
		status, count int
	}{
		{"?space=" + space + "&service=kv&prefix=docs", "hooks/kv/docs", 200, 5},
		{"?space=" + space + "&service=kv", "hooks/kv", 200, 5},
		{"?space=" + space + "&service=kv", "hooks/kv/docs", 403, 0},
		{"", "hooks/webhooks", 200, 5},
		{"?space=nonsense", "hooks/webhooks", 400, 0},
		{"?space=" + url.QueryEscape(other.space.String()) + "&service=kv", "hooks", 403, 0},
	} {
		if status, count := list(tt.query, tt.path, "tinycloud.hooks/list"); status != tt.status || count != tt.count {
			t.Errorf("list %s by %s: %d, %d records", tt.query, tt.path, status, count)
		}
	}
	remove := func(who *owner) answer {
		return who.hook(http.MethodDelete, "/hooks/webhooks/"+first.ID, "", "hooks/webhooks/"+first.ID, "tinycloud.hooks/unregister")
	}
	remove(other).want(t, "stranger", 404, "webhook not found")
	remove(o).want(t, "remove", 204, "")
	remove(o).want(t, "again", 404, "webhook not found")
	if status, count := list("", "hooks", "tinycloud.hooks/list"); status != 200 || count != 4 {
		t.Errorf("afterwards: %d, %d records", status, count)
	}
}

// TestStreamOutlivesDeadlines holds a stream open for longer than a connection may be idle.
func TestStreamOutlivesDeadlines(t *testing.T) {
	const idle = 500 * time.Millisecond
	n := newNode(t, func(_ *capstore.Options, o *httpapi.Options) { o.Idle = idle })
	o := n.owner("alice")
	next := n.events(o.ticket(), "")
	for i := range 2 {
		<-time.After(idle + idle/5)
		o.put(fmt.Sprint("k", i), "v", nil).want(t, "put", 200, "")
		if _, data := next(); !strings.Contains(data, fmt.Sprintf(`"path":"k%d"`, i)) {
			t.Error(data)
		}
	}
}
