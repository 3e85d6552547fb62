package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// call sends a request to a peer and checks the status of the answer.
func (g *group) call(p *cluster.Peer, status int, method, path, token string, header map[string]string, body io.Reader) cluster.Answer {
	g.Helper()
	a, err := g.owner.Call(g.ctx, p, method, path, token, header, body)
	g.must(err)
	if a.Status != status {
		g.Fatalf("%s: %s %s: %d %.200q, want %d", p.Name, method, path, a.Status, a.Body, status)
	}
	return a
}

func (g *group) invoke(p *cluster.Peer, status int, header map[string]string, body string, pairs ...string) cluster.Answer {
	g.Helper()
	return g.call(p, status, http.MethodPost, "/invoke", g.owner.Token(pairs...), header, strings.NewReader(body))
}

// TestAReplicaServesTheWholeSurface does on one host what an app does, and reads and goes on at another.
func TestAReplicaServesTheWholeSurface(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2)
	g.same()
	origin, replica := g.nodes.Peers()[0], g.nodes.Peers()[1]
	g.batchPut(origin, map[string]string{"b/1": "one", "b/2": "two", "b/3": "three"})
	g.same()

	got := g.invoke(replica, 200, nil, "", "kv/b/1", "tinycloud.kv/get", "kv/b/3", "tinycloud.kv/get", "kv/b/no", "tinycloud.kv/get")
	for _, want := range []string{`"key":"b/1","ok":true,"dataBase64":"b25l"`, `"dataBase64":"dGhyZWU="`, `"code":"KV_NOT_FOUND"`} {
		if !strings.Contains(got.Body, want) {
			t.Errorf("batch get on the replica: no %s in %s", want, got.Body)
		}
	}
	page := g.invoke(replica, 200, map[string]string{"X-Tinycloud-Limit": "2"}, "", "kv/b/", "tinycloud.kv/list")
	next := map[string]string{"X-Tinycloud-Limit": "2", "X-Tinycloud-Cursor": page.Header.Get("X-Tinycloud-Next-Cursor")}
	if rest := g.invoke(replica, 200, next, "", "kv/b/", "tinycloud.kv/list"); page.Body+rest.Body != `["b/1","b/2"]["b/3"]` {
		t.Errorf("pages %s %s", page.Body, rest.Body)
	}
	part := g.invoke(replica, 206, map[string]string{"Range": "bytes=1-2"}, "", "kv/b/3", "tinycloud.kv/get")
	if part.Body != "hr" || part.Header.Get("Content-Range") != "bytes 1-2/5" {
		t.Errorf("range %q %v", part.Body, part.Header)
	}

	// A precondition is judged on the serving host's state.
	tag := part.Header.Get("ETag")
	g.invoke(replica, 200, map[string]string{"If-Match": tag}, "three, changed", "kv/b/3", "tinycloud.kv/put")
	g.invoke(replica, 412, map[string]string{"If-Match": tag}, "again", "kv/b/3", "tinycloud.kv/put")
	g.invoke(replica, 412, map[string]string{"If-None-Match": "*"}, "create", "kv/b/1", "tinycloud.kv/put")
	g.same()
	g.invoke(origin, 412, map[string]string{"If-Match": tag}, "too late", "kv/b/3", "tinycloud.kv/del")
	g.reads("b/3", "three, changed", origin, replica)
	g.signedURL(replica, "b/3", "three, changed")
}

func (g *group) batchPut(p *cluster.Peer, values map[string]string) {
	g.Helper()
	var body bytes.Buffer
	var pairs []string
	form := multipart.NewWriter(&body)
	for key, value := range values {
		w, err := form.CreateFormField(url.PathEscape(key))
		g.must(err)
		_, err = io.WriteString(w, value)
		g.must(err)
		pairs = append(pairs, "kv/"+key, "tinycloud.kv/put")
	}
	g.must(form.Close())
	g.call(p, 200, http.MethodPost, "/invoke", g.owner.Token(pairs...), map[string]string{"Content-Type": form.FormDataContentType()}, &body)
}

// signedURL has a peer sign a URL and reads it whole and in part.
func (g *group) signedURL(p *cluster.Peer, key, value string) {
	g.Helper()
	body := fmt.Sprintf(`{"space":%q,"path":%q}`, g.owner.Space, key)
	made := g.call(p, 200, http.MethodPost, "/signed/kv", g.owner.Token("kv/"+key, "tinycloud.kv/get"),
		map[string]string{"Content-Type": "application/json"}, strings.NewReader(body))
	var ticket struct{ URL string }
	g.must(json.Unmarshal([]byte(made.Body), &ticket))
	if whole := g.call(p, 200, http.MethodGet, ticket.URL, "", nil, nil); whole.Body != value {
		g.Errorf("signed URL: %q", whole.Body)
	}
	if part := g.call(p, 206, http.MethodGet, ticket.URL, "", map[string]string{"Range": "bytes=-3"}, nil); part.Body != value[len(value)-3:] {
		g.Errorf("part of a signed URL: %q", part.Body)
	}
}

// TestPublicSpaceOnAReplica reads a Space named public without a token, where it was written and elsewhere.
func TestPublicSpaceOnAReplica(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0, "public")
	g.add()
	g.add()
	g.same()
	origin, replica := g.nodes.Peers()[0], g.nodes.Peers()[1]
	g.invoke(origin, 200, map[string]string{"Content-Type": "text/plain"}, "hello", "kv/profile", "tinycloud.kv/put")
	g.same()
	base := "/public/" + url.PathEscape(g.owner.Space.String()) + "/kv"
	got := g.call(replica, 200, http.MethodGet, base+"/profile", "", nil, nil)
	if got.Body != "hello" || got.Header.Get("Cache-Control") != "public, max-age=60" || got.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("%q %v", got.Body, got.Header)
	}
	if head := g.call(replica, 200, http.MethodHead, base+"/profile", "", nil, nil); head.Header.Get("Content-Length") != "5" {
		t.Errorf("head %v", head.Header)
	}
	g.call(replica, 304, http.MethodGet, base+"/profile", "", map[string]string{"If-None-Match": got.Header.Get("ETag")}, nil)
	if list := g.call(replica, 200, http.MethodGet, base+"?prefix=pro", "", nil, nil); list.Body != `["profile"]` {
		t.Errorf("list %s", list.Body)
	}
}

// event is one server-sent event of a write.
type event struct {
	ID   string
	Type string
	Path string
}

// events subscribes at a peer to the keys below a prefix and calls f with every event, from the one after last
// on, until f returns false or the stream ends.
func (g *group) events(ctx context.Context, p *cluster.Peer, prefix, last string, f func(event) bool) error {
	return g.eventsOf(ctx, p, "kv", prefix, last, f)
}

// eventsOf is the same of any service.
func (g *group) eventsOf(ctx context.Context, p *cluster.Peer, service, prefix, last string, f func(event) bool) error {
	ticket, err := g.ticketFor(ctx, p, service, prefix)
	if err != nil {
		return err
	}
	return listen(ctx, p, ticket, last, nil, f)
}

// ticket is for the events of the keys below a prefix.
func (g *group) ticket(ctx context.Context, p *cluster.Peer, prefix string) (string, error) {
	return g.ticketFor(ctx, p, "kv", prefix)
}

func (g *group) ticketFor(ctx context.Context, p *cluster.Peer, service, prefix string) (string, error) {
	body := fmt.Sprintf(`{"subscriptions":[{"space":%q,"service":%q,"pathPrefix":%q,"abilities":[]}]}`, g.owner.Space, service, prefix)
	made, err := g.owner.Call(ctx, p, http.MethodPost, "/hooks/tickets", g.owner.Token("hooks/"+service+"/"+prefix, "tinycloud.hooks/subscribe"),
		map[string]string{"Content-Type": "application/json"}, strings.NewReader(body))
	if err != nil || made.Status != http.StatusOK {
		return "", fmt.Errorf("ticket: %d %s %w", made.Status, made.Body, err)
	}
	var ticket struct{ Ticket string }
	err = json.Unmarshal([]byte(made.Body), &ticket)
	return ticket.Ticket, err
}

// listen calls f with every event that a ticket of a peer is for, until f returns false or the stream ends, which is
// [io.EOF]. opened, if not nil, is called when the stream is open.
func listen(ctx context.Context, p *cluster.Peer, ticket, last string, opened func(), f func(event) bool) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/hooks/events?ticket="+url.QueryEscape(ticket), nil)
	if err != nil {
		return err
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // broken off
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("events: %d", resp.StatusCode)
	}
	if opened != nil {
		opened()
	}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var e event
		if !ok {
			continue
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return err
		}
		if !f(e) {
			return nil
		}
	}
	return io.EOF
}

// TestHooksWhileAPeerRestarts listens at a replica to what is written at the origin. The replica is killed in the
// middle; who comes back with the last event it saw misses none.
func TestHooksWhileAPeerRestarts(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2)
	g.same()
	origin, replica := g.nodes.Peers()[0], g.nodes.Peers()[1]
	var paths []string
	last, wrote := "", 0
	write := func(n int) {
		for range n {
			g.put(origin, fmt.Sprintf("feed/%03d", wrote), "x")
			wrote++
		}
	}
	listen := func(until int) {
		g.must(g.events(g.ctx, replica, "feed", last, func(e event) bool {
			if e.Type != "write" || slices.Contains(paths, e.Path) {
				t.Errorf("event %+v", e)
			}
			paths, last = append(paths, e.Path), e.ID
			return len(paths) < until
		}))
	}
	write(1) // to have an event to begin after
	g.put(origin, "elsewhere", "not below the prefix")
	g.same()
	first := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		seen := 0
		first <- g.events(g.ctx, replica, "feed", "", func(e event) bool {
			if seen++; seen == 1 {
				close(ready)
			}
			paths, last = append(paths, e.Path), e.ID
			return seen < 20
		})
	}()
	for started := false; !started; {
		write(1)
		select {
		case <-ready:
			started = true
		case err := <-first:
			t.Fatal(err)
		default:
		}
	}
	write(25)
	g.must(<-first)
	var missed int // before the stream was open; it broke off before the last were read
	if _, err := fmt.Sscanf(paths[0], "feed/%d", &missed); err != nil {
		t.Fatal(err)
	}
	g.must(replica.Kill())
	write(5)
	g.must(replica.Start(g.ctx))
	write(5)
	listen(wrote - missed)
	want := make([]string, 0, wrote)
	for n := missed; n < wrote; n++ {
		want = append(want, fmt.Sprintf("feed/%03d", n))
	}
	if !slices.Equal(paths, want) {
		t.Errorf("%d events, want %d: %v", len(paths), len(want), paths)
	}
}

// A Space that waits for the history of its other hosts is not shown as an empty one.
func TestJoiningSpaceWaits(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 1)
	first := g.nodes.Peers()[0]
	g.put(first, "bootstrap", "complete")
	addrs := g.view(first, g.owner).Addrs
	g.must(first.Stop())

	late, err := g.nodes.Add(g.ctx)
	g.must(err)
	g.must(g.owner.Host(g.ctx, late))
	_, err = g.owner.SignIn(g.ctx, late)
	g.must(err)
	g.invoke(late, http.StatusNotFound, nil, "", "kv/bootstrap", "tinycloud.kv/get")
	_, err = late.Admin.Join(g.ctx, g.owner.Space, node.JoinRequest{Addrs: addrs})
	g.must(err)
	waits := func() {
		t.Helper()
		for _, ability := range []string{"tinycloud.kv/get", "tinycloud.kv/put", "tinycloud.kv/del", "tinycloud.kv/list"} {
			a := g.invoke(late, http.StatusServiceUnavailable, nil, "fresh", "kv/bootstrap", ability)
			if a.Header.Get("Retry-After") == "" || !strings.Contains(a.Body, "joining") {
				t.Errorf("%s: %v %q", ability, a.Header, a.Body)
			}
		}
	}
	waits()
	g.must(late.Kill())
	g.must(late.Start(g.ctx))
	waits()
	g.must(first.Start(g.ctx))
	g.same()
	g.reads("bootstrap", "complete", late)

	// Who has writes of its own goes on; so does who is told that the others have none.
	_, err = first.Admin.Join(g.ctx, g.owner.Space, node.JoinRequest{Addrs: g.nowhere(g.view(late, g.owner).Addrs)})
	g.must(err)
	g.must(late.Stop())
	g.put(first, "more", "as before")
	alone, err := g.nodes.Add(g.ctx)
	g.must(err)
	g.must(g.owner.Host(g.ctx, alone))
	_, err = g.owner.SignIn(g.ctx, alone)
	g.must(err)
	_, err = alone.Admin.Join(g.ctx, g.owner.Space, node.JoinRequest{Addrs: g.nowhere(addrs)})
	g.must(err)
	g.invoke(alone, http.StatusServiceUnavailable, nil, "", "kv/bootstrap", "tinycloud.kv/get")
	_, err = alone.Admin.Join(g.ctx, g.owner.Space, node.JoinRequest{Empty: true})
	g.must(err)
	g.invoke(alone, http.StatusNotFound, nil, "", "kv/bootstrap", "tinycloud.kv/get")
}

// nowhere returns an address of a Space where nobody listens.
func (g *group) nowhere(addrs []string) []string {
	g.Helper()
	_, peers, ok := strings.Cut(addrs[0], "/p2p/")
	if !ok {
		g.Fatalf("address %s", addrs[0])
	}
	return []string{"/ip4/127.0.0.1/tcp/1/p2p/" + peers}
}
