package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// httpAttacks are what an assailant prepares, and then does until a context ends.
var httpAttacks = map[string]func(*assailant) func(context.Context){
	"sockets that say nothing":        idleSockets,
	"bodies that trickle":             trickles,
	"heads that trickle":              slowHeads,
	"tokens that are none":            garbageTokens,
	"tokens that ask for nothing":     emptyTokens,
	"one token again and again":       replayedTokens,
	"streams of events":               manyStreams,
	"public reads":                    publicReads,
	"guesses of the admin's secret":   guesses,
	"what anybody may ask":            openQuestions,
	"a Space filled to its limit":     filledSpace,
	"uploads that break off":          brokenUploads,
	"batches":                         batches,
	"addresses that are made up":      madeUpAddresses,
	"requests of many on one address": manyAtOnce,
}

// assailant is a client who means harm. It owns a Space at the host, as anybody can.
type assailant struct {
	*httpSiege
	name    string
	wallet  *captest.Wallet
	session *captest.SessionKey
	space   tinycloud.SpaceID
	header  string // of the session's delegation
	direct  *http.Client
	proxied *http.Client // whose addresses the host takes from what is said

	mu      sync.Mutex
	answers map[string]int // by status, or how a request ended
}

func newAssailant(s *httpSiege, name string) *assailant {
	s.Helper()
	x := &assailant{
		httpSiege: s, name: name, wallet: captest.RandomWallet(), session: captest.RandomSession(), answers: map[string]int{},
		direct:  &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}},
		proxied: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}},
	}
	x.space = x.wallet.Space("public")
	id := x.space.String()
	x.header = x.wallet.SignDelegation(captest.DelegationOptions{Audience: x.session.URI(), Caps: captest.Caps{
		id + "/kv":           {"tinycloud.kv/get", "tinycloud.kv/put", "tinycloud.kv/del", "tinycloud.kv/list"},
		id + "/hooks":        {"tinycloud.hooks/subscribe"},
		id + "/capabilities": {"tinycloud.capabilities/read"},
	}})
	did, err := s.a.Admin.HostDID(s.ctx, x.space)
	s.must(err)
	_, err = s.a.Admin.Delegate(s.ctx, x.wallet.SignHost(x.space, did))
	s.must(err)
	_, err = s.a.Admin.Delegate(s.ctx, x.header)
	s.must(err)
	s.Cleanup(func() {
		x.direct.CloseIdleConnections()
		x.proxied.CloseIdleConnections()
		s.Logf("%s: %v", name, x.answers)
		if len(x.answers) == 0 {
			s.Errorf("%s: nothing came of it", name)
		}
	})
	return x
}

// came counts what came of something.
func (x *assailant) came(of string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answers[of]++
}

// token signs what the session asks for, by pairs of a path and an ability.
func (x *assailant) token(pairs ...string) string {
	caps := captest.Caps{}
	for i := 0; i+1 < len(pairs); i += 2 {
		uri := x.space.String() + "/" + pairs[i]
		caps[uri] = append(caps[uri], pairs[i+1])
	}
	return x.session.Invoke(captest.TokenOptions{Caps: caps, Proofs: []tinycloud.Hash{captest.ID(x.header)}})
}

// anyone is an address that nobody else has.
func anyone() string {
	return fmt.Sprintf("2001:db8:%x:%x::1", mathrand.IntN(1<<16), mathrand.IntN(1<<16))
}

// ask sends a request to the host from an address, or with "" as what it is: a stranger.
func (x *assailant) ask(ctx context.Context, from, method, path, token string, header map[string]string, body io.Reader) (int, string) {
	client, base := x.direct, "http://"+x.outside
	if from != "" {
		client, base = x.proxied, x.a.URL
	}
	r, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		x.Error(x.name, err)
		return 0, ""
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	if from != "" {
		r.Header.Set("X-Forwarded-For", from)
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	resp, err := client.Do(r)
	if err != nil {
		if ctx.Err() == nil {
			x.came("closed")
		}
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil && ctx.Err() == nil {
		x.came("cut")
	}
	x.came(fmt.Sprint(resp.StatusCode))
	return resp.StatusCode, string(b)
}

// times has n workers do something until ctx ends.
func times(n int, f func(ctx context.Context, i int)) func(context.Context) {
	return func(ctx context.Context) {
		var workers sync.WaitGroup
		for range n {
			workers.Go(func() {
				until(ctx, breath, func(i int) bool {
					f(ctx, i)
					return ctx.Err() == nil
				})
			})
		}
		workers.Wait()
	}
}

// hold opens connections to an address, writes to each what it begins with and then a piece each time, and opens others
// for those that are closed.
func (x *assailant) hold(n int, addr string, begin func() string, piece string) func(context.Context) {
	return func(ctx context.Context) {
		conns := make([]net.Conn, n)
		until(ctx, breath, func(int) bool {
			for i, c := range conns {
				if c != nil {
					_ = c.SetReadDeadline(time.Now().Add(100 * time.Microsecond))
					_, err := c.Read(make([]byte, 1024))
					var slow net.Error
					if err == nil || errors.As(err, &slow) && slow.Timeout() {
						_ = c.SetWriteDeadline(time.Now().Add(time.Millisecond))
						_, _ = io.WriteString(c, piece)
						continue
					}
					x.came("closed")
					_ = c.Close()
					conns[i] = nil
				}
				var d net.Dialer
				if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
					x.came("opened")
					_, _ = io.WriteString(c, begin())
					conns[i] = c
				}
			}
			return ctx.Err() == nil
		})
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}
}

func idleSockets(x *assailant) func(context.Context) { return x.hold(200, x.outside, always(""), "") }

func slowHeads(x *assailant) func(context.Context) {
	return x.hold(40, x.outside, always("POST /invoke HTTP/1.1\r\nHost: x\r\nAuthorization: "), "x")
}

// trickles send bodies to what reads them, and to what refuses the request.
func trickles(x *assailant) func(context.Context) {
	var all []func(context.Context)
	for _, path := range []string{"/admin/nodes", "/invoke", "/delegate", "/nowhere", "/healthz"} {
		head := "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nX-Forwarded-For: %s\r\n\r\n"
		all = append(all, x.hold(20, x.outside, always(head), "x"))
		all = append(all, x.hold(10, x.proxy(), func() string { return fmt.Sprintf(head, anyone()) }, "x"))
	}
	all = append(all, x.hold(20, x.proxy(), func() string { return x.longPut(anyone()) }, "x"))
	return func(ctx context.Context) {
		var wg sync.WaitGroup
		for _, f := range all {
			wg.Go(func() { f(ctx) })
		}
		wg.Wait()
	}
}

// garbageTokens are of all kinds: noise, too long, deep, signed by nobody, changed after they were signed.
func garbageTokens(x *assailant) func(context.Context) {
	noise := make([]byte, 40<<10)
	rand.Read(noise)
	good := x.token("kv/a", "tinycloud.kv/put")
	head, _, _ := strings.Cut(good, ".")
	all := []string{
		base64.RawURLEncoding.EncodeToString(noise), base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0x81}, 40<<10)),
		good[:len(good)-8] + "AAAAAAAA", head + "." + strings.Repeat("A", 60<<10) + ".AAAA", strings.Repeat("a.", 30<<10),
		head + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat(`{"att":`, 5000))) + ".AAAA",
		captest.RandomWallet().SignHost(x.space, "did:key:zNobody"), captest.RandomSession().Invoke(captest.TokenOptions{
			Caps: captest.Caps{x.owner.Space.String() + "/kv/plans": {"tinycloud.kv/get"}}, Proofs: []tinycloud.Hash{captest.ID(x.header)},
		}),
	}
	paths := []string{"/invoke", "/delegate", "/revoke", "/hooks/tickets", "/signed/kv"}
	return times(2, func(ctx context.Context, i int) {
		x.ask(ctx, anyone(), http.MethodPost, paths[i%len(paths)], all[mathrand.IntN(len(all))], nil, strings.NewReader("{}"))
	})
}

// emptyTokens are well signed, of a key made for each, and ask for nothing.
func emptyTokens(x *assailant) func(context.Context) {
	return times(2, func(ctx context.Context, _ int) {
		x.ask(ctx, anyone(), http.MethodPost, "/invoke", captest.RandomSession().Invoke(captest.TokenOptions{Att: "{}"}), nil, nil)
	})
}

func replayedTokens(x *assailant) func(context.Context) {
	tokens := []string{x.token("kv/a", "tinycloud.kv/get"), x.token("kv/a", "tinycloud.kv/put")}
	return times(2, func(ctx context.Context, i int) {
		if status, _ := x.ask(ctx, anyone(), http.MethodPost, "/invoke", tokens[i%2], nil, strings.NewReader("x")); status == http.StatusOK {
			x.changed()
		}
	})
}

// manyStreams opens as many streams as it gets, of one ticket and of one Space.
func manyStreams(x *assailant) func(context.Context) {
	return func(ctx context.Context) {
		body := fmt.Sprintf(`{"subscriptions":[{"space":%q,"service":"kv","pathPrefix":"","abilities":[]}]}`, x.space)
		var streams sync.WaitGroup
		defer streams.Wait()
		open, ticket := make(chan struct{}, 300), ""
		until(ctx, breath/4, func(i int) bool {
			if i%8 == 0 {
				_, made := x.ask(ctx, anyone(), http.MethodPost, "/hooks/tickets", x.token("hooks/kv", "tinycloud.hooks/subscribe"), nil, strings.NewReader(body))
				if _, rest, ok := strings.Cut(made, `"ticket":"`); ok {
					ticket, _, _ = strings.Cut(rest, `"`)
				}
			}
			select {
			case open <- struct{}{}:
			default:
				return true
			}
			path := "/hooks/events?ticket=" + url.QueryEscape(ticket)
			streams.Go(func() {
				defer func() { <-open }()
				x.ask(ctx, anyone(), http.MethodGet, path, "", nil, nil)
			})
			return true
		})
	}
}

func publicReads(x *assailant) func(context.Context) {
	base := "/public/" + url.PathEscape(x.space.String()) + "/kv"
	return times(3, func(ctx context.Context, i int) {
		x.ask(ctx, []string{"", anyone(), "198.51.100.7"}[i%3], http.MethodGet, base+[]string{"", "/a", "/../../x"}[i%3], "", nil, nil)
	})
}

func guesses(x *assailant) func(context.Context) {
	return times(8, func(ctx context.Context, i int) {
		x.ask(ctx, []string{"", anyone()}[i%2], http.MethodGet, "/admin/spaces", fmt.Sprint("Bearer guess", i), nil, nil)
	})
}

func openQuestions(x *assailant) func(context.Context) {
	paths := []string{"/healthz", "/info", "/version", "/peer/generate/" + url.PathEscape(x.wallet.Space("any").String()), "/healthz?space=" + url.QueryEscape(x.space.String()), "/x" + strings.Repeat("/y", 4000)}
	return times(2, func(ctx context.Context, i int) {
		x.ask(ctx, anyone(), []string{http.MethodGet, http.MethodOptions, http.MethodHead}[i%3], paths[mathrand.IntN(len(paths))], "", nil, nil)
	})
}

// filledSpace writes beyond what its Space may hold, and deletes to write again.
func filledSpace(x *assailant) func(context.Context) {
	value := make([]byte, 1<<20)
	rand.Read(value)
	return times(1, func(ctx context.Context, i int) {
		value[i%len(value)]++
		key, ability := fmt.Sprint("kv/fill/", i%16), "tinycloud.kv/put"
		if i%64 >= 48 {
			ability = "tinycloud.kv/del"
		}
		if status, _ := x.ask(ctx, anyone(), http.MethodPost, "/invoke", x.token(key, ability), nil, bytes.NewReader(value)); status == http.StatusOK {
			x.changed()
		}
	})
}

// brokenUploads say that they are long, and end early.
func brokenUploads(x *assailant) func(context.Context) {
	return times(2, func(ctx context.Context, i int) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", x.proxy())
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = fmt.Fprintf(c, "POST /invoke HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nContent-Length: 5000000\r\nAuthorization: %s\r\n\r\n",
			anyone(), x.token(fmt.Sprint("kv/broken/", i), "tinycloud.kv/put"))
		for range 16 {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
		x.came("broken off")
	})
}

// batches are of many parts, of which one is missing, or wrong, or too much.
func batches(x *assailant) func(context.Context) {
	return times(1, func(ctx context.Context, i int) {
		var body bytes.Buffer
		form, pairs := multipart.NewWriter(&body), []string{}
		for n := range 100 {
			key := fmt.Sprint("batch/", n)
			pairs = append(pairs, "kv/"+key, "tinycloud.kv/put")
			if n == 99 && i%2 == 0 {
				key = "batch/none of these"
			}
			w, err := form.CreateFormField(key)
			if err == nil {
				_, err = w.Write(make([]byte, 4<<10))
			}
			if err != nil {
				x.Error(err)
			}
		}
		if i%3 > 0 {
			_ = form.Close()
		}
		if status, _ := x.ask(ctx, anyone(), http.MethodPost, "/invoke", x.token(pairs...), map[string]string{"Content-Type": form.FormDataContentType()}, &body); status == http.StatusOK {
			for range 100 {
				x.changed()
			}
		}
	})
}

// madeUpAddresses says, without a proxy between, that it is others, and the operator.
func madeUpAddresses(x *assailant) func(context.Context) {
	return times(2, func(ctx context.Context, i int) {
		header := forwarded([]string{"127.0.0.1", "203.0.113.1", anyone()}[i%3])
		maps.Copy(header, map[string]string{"Forwarded": "for=127.0.0.1"})
		x.ask(ctx, "", http.MethodGet, "/admin/node", "Bearer guess", header, nil)
	})
}

// manyAtOnce has one client behind the proxy send as many requests as it can.
func manyAtOnce(x *assailant) func(context.Context) {
	return x.hold(160, x.proxy(), func() string { return x.longPut("198.51.100.99") }, "x")
}

func always(text string) func() string { return func() string { return text } }

// proxy is the address of the host for who is a proxy.
func (x *assailant) proxy() string { return strings.TrimPrefix(x.a.URL, "http://") }

// longPut is the head of a put whose body is yet to come.
func (x *assailant) longPut(from string) string {
	return "POST /invoke HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: " + from + "\r\nContent-Length: 100000\r\nAuthorization: " +
		x.token("kv/long", "tinycloud.kv/put") + "\r\n\r\n"
}
