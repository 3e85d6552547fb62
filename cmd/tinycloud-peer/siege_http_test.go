package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

const (
	spaceLimit = 8 << 20 // bytes of values that a Space may hold at the host under siege
	breath     = 20 * time.Millisecond

	// What the disk may grow by, in bytes: for each change that was acknowledged, its token, its operation and what names
	// them; and files that the database keeps for what is under way.
	changeCost, workspace = 8 << 10, 48 << 20
)

// httpSiege is a host that strangers reach, with a second host of a Space there, and honest clients of both.
type httpSiege struct {
	*siege
	outside string // address of the HTTP API that strangers have to call
	owners  []*cluster.Owner
	took    []time.Duration // of honest puts; guarded by mu
	changes int64           // acknowledged, guarded by mu
	tokens  int64           // bytes of the delegations that assailants had taken, guarded by mu
	mu      sync.Mutex

	accomplice *cluster.Peer // a node of assailants
}

// TestHTTPSiege has clients who mean harm do everything at once that is known to have harmed, while honest ones work and
// another host replicates. HTTP_SIEGE=2m goes on for that long. No honest request fails. How long they took is said.
func TestHTTPSiege(t *testing.T) {
	t.Parallel()
	length := 4 * time.Second
	if text := os.Getenv("HTTP_SIEGE"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	s := newHTTPSiege(t, length)
	prepared := map[string]func(context.Context){}
	for name, arm := range httpAttacks {
		prepared[name] = arm(newAssailant(s, name))
	}
	memory := s.peak(func() {
		s.warm()
		s.work(time.Second) // what is loaded only once is loaded
	})
	disk, changes, tokens, before := s.disk(), s.changes, s.tokens, len(s.took)
	ctx, over := context.WithCancel(s.ctx)
	var attackers sync.WaitGroup
	for _, attack := range prepared {
		attackers.Go(func() { attack(ctx) })
	}
	peak := s.peak(func() {
		s.work(length)
		over()
		attackers.Wait()
	})
	grown := s.disk() - disk
	took := slices.Sorted(slices.Values(s.took[before:]))
	t.Logf("%d honest puts, the median took %s, p99 %s; memory grew by %d KiB, the disk by %d KiB", len(took),
		took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond), peak-memory, grown>>10)
	if peak-memory > growth {
		t.Errorf("memory grew by %d KiB, from %d", peak-memory, memory)
	}
	if most := int64(len(prepared))*spaceLimit*5/4 + (s.changes-changes)*changeCost + (s.tokens-tokens)*2 + workspace; grown > most {
		t.Errorf("the disk grew by %d bytes, %d were expected", grown, most)
	}
	s.reads("plans/secret", "the code is 0451 0451", s.a, s.b)
	s.same(s.a, s.b)
}

// newHTTPSiege starts both hosts. That under siege trusts this machine to be a proxy, so that clients can have any
// address, and can be reached without it.
func newHTTPSiege(t *testing.T, length time.Duration) *httpSiege {
	t.Helper()
	s := &httpSiege{siege: &siege{group: startGroup(t, 0)}}
	ctx, cancel := context.WithTimeoutCause(t.Context(), length+2*time.Minute, errors.New("not in time"))
	t.Cleanup(cancel)
	s.ctx = ctx
	var err error
	s.a, err = s.nodes.Add(ctx, "TINYCLOUD_ADDRESS=0.0.0.0", "TINYCLOUD_TRUSTED_PROXIES=127.0.0.1", fmt.Sprint("TINYCLOUD_STORAGE_LIMIT=", spaceLimit))
	s.must(err)
	s.b, err = s.nodes.Add(ctx)
	s.must(err)
	u, err := url.Parse(s.a.URL)
	s.must(err)
	s.outside = net.JoinHostPort(outsideAddress(t), u.Port())
	s.accomplice, err = s.nodes.Add(ctx, "TINYCLOUD_STORAGE_LIMIT=1 GiB")
	s.must(err)
	for _, p := range []*cluster.Peer{s.a, s.b} {
		s.must(s.owner.Host(ctx, p))
	}
	s.must(s.owner.Join(ctx, s.b, s.a))
	_, err = s.owner.SignIn(ctx, s.a)
	s.must(err)
	s.put(s.a, "plans/secret", "the code is 0451 0451")
	for range 3 {
		o := cluster.NewOwner("default")
		t.Cleanup(o.Close)
		s.must(o.Host(ctx, s.a))
		_, err = o.SignIn(ctx, s.a)
		s.must(err)
		s.owners = append(s.owners, o)
	}
	s.same(s.a, s.b)
	return s
}

// outsideAddress is one of this machine that is not loopback's: who calls it is a stranger.
func outsideAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr().String()
		}
	}
	t.Fatal("this machine has no IPv4 address that is not loopback's, so there are no strangers on it")
	return ""
}

// peak is the most memory, in KiB, that the host under siege takes while something goes on: without the program's own
// text, which is in memory as it is used.
func (s *httpSiege) peak(during func()) (most int) {
	s.Helper()
	ctx, over := context.WithCancel(s.ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		until(ctx, breath, func(int) bool {
			most = max(most, s.memory("RssAnon"))
			return true
		})
	})
	during()
	over()
	watch.Wait()
	return most
}

// warm has as much be used as busy honest clients use, so that what is measured is what harm adds. What has a bound for all
// together is as large whoever fills it: the caches of the database and of tokens, with values that are kept in it, and
// sign-ins to apps that ask for much. And half as many clients work at once as assailants have connections.
func (s *httpSiege) warm() {
	s.Helper()
	value := make([]byte, 32<<10) // kept in the database
	rand.Read(value)
	each := func(clients, n int, do func(o *cluster.Owner, name string) error) {
		s.Helper()
		var all sync.WaitGroup
		defer all.Wait()
		for i := range clients {
			o := s.owners[i%len(s.owners)]
			all.Go(func() {
				for n := range n {
					if err := do(o, fmt.Sprintf("kept/%d/%d", i, n)); err != nil {
						s.Error("before it begins: ", err)
						return
					}
				}
			})
		}
	}
	each(12, 48, func(o *cluster.Owner, key string) error { return o.Put(s.ctx, s.a, key, value) }) // 6 MiB in each Space
	each(12, 20, func(o *cluster.Owner, app string) error {
		_, err := s.a.Admin.Delegate(s.ctx, o.Wallet.SignDelegation(captest.DelegationOptions{Audience: captest.RandomSession().URI(), Caps: many(o.Space, app, 40)}))
		return err
	})
	each(240, 2, func(o *cluster.Owner, key string) error { return o.Put(s.ctx, s.a, key, value) }) // the same keys, and others
	each(240, 4, func(o *cluster.Owner, key string) error {
		_, err := o.Get(s.ctx, s.a, key)
		return ignoreAbsence(err)
	})
}

// work has honest clients do for a while what they do.
func (s *httpSiege) work(length time.Duration) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, length)
	defer cancel()
	var clients sync.WaitGroup
	defer clients.Wait()
	for i, o := range append([]*cluster.Owner{s.owner}, s.owners...) {
		clients.Go(func() { s.writes(ctx, o, fmt.Sprintf("203.0.113.%d", i+1)) })
	}
	clients.Go(func() { s.replicates(ctx) })
	clients.Go(func() { s.listens(ctx) })
}

// until calls f again and again, with a pause, until ctx ends or it returns false.
func until(ctx context.Context, pause time.Duration, f func(i int) bool) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := 0; f(i); i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// writes is a client at an address that writes and reads what it wrote.
func (s *httpSiege) writes(ctx context.Context, o *cluster.Owner, from string) {
	until(ctx, breath, func(i int) bool {
		key, value := fmt.Sprint("work/", i%64), strings.Repeat(fmt.Sprint("line ", i, " "), 100)
		began := time.Now()
		put, err := o.Call(s.ctx, s.a, http.MethodPost, "/invoke", o.Token("kv/"+key, "tinycloud.kv/put"), forwarded(from), strings.NewReader(value))
		took := time.Since(began)
		if err != nil || put.Status != http.StatusOK {
			s.Errorf("put of an honest client after %s: %d %.200q %v", took, put.Status, put.Body, err)
			return false
		}
		got, err := o.Call(s.ctx, s.a, http.MethodPost, "/invoke", o.Token("kv/"+key, "tinycloud.kv/get"), forwarded(from), nil)
		if err != nil || got.Status != http.StatusOK || got.Body != value {
			s.Errorf("get of an honest client: %d %.200q %v", got.Status, got.Body, err)
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.took = append(s.took, took)
		s.changes++
		return true
	})
}

// changed counts a change of somebody who means harm.
func (s *httpSiege) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
}

func forwarded(from string) map[string]string { return map[string]string{"X-Forwarded-For": from} }

// replicates writes at the host under siege what has to arrive at the other, and the other way round.
func (s *httpSiege) replicates(ctx context.Context) {
	until(ctx, breath, func(i int) bool {
		at, other := s.a, s.b
		if i%2 == 1 {
			at, other = s.b, s.a
		}
		key, value := fmt.Sprint("both/", i%16), fmt.Sprint("replicated ", i)
		if err := s.owner.Put(s.ctx, at, key, []byte(value)); err != nil {
			s.Error("put: ", err)
			return false
		}
		soon, cancel := context.WithTimeoutCause(s.ctx, honestly, errors.New("too slow"))
		defer cancel()
		if err := cluster.Poll(soon, 5*time.Millisecond, func() (bool, error) {
			got, err := s.owner.Get(soon, other, key)
			return string(got) == value, ignoreAbsence(err)
		}); err != nil {
			s.Errorf("%s from %s to %s: %v", key, at.Name, other.Name, err)
			return false
		}
		return true
	})
}

// listens opens streams of events, and hears of a write.
func (s *httpSiege) listens(ctx context.Context) {
	until(ctx, breath, func(i int) bool {
		prefix := fmt.Sprint("heard/", i)
		soon, cancel := context.WithTimeoutCause(s.ctx, honestly, errors.New("too slow"))
		defer cancel()
		ticket, err := s.ticket(soon, s.a, prefix)
		if err == nil {
			heard := false
			err = listen(soon, s.a, ticket, "", func() {
				if err := s.owner.Put(s.ctx, s.a, prefix+"/it", []byte("x")); err != nil {
					s.Error("put of a listener: ", err)
				}
			}, func(event) bool {
				heard = true
				return false
			})
			if !heard && err == nil {
				err = errors.New("nothing was heard")
			}
		}
		if err != nil {
			s.Errorf("events below %s: %v", prefix, err)
		}
		return err == nil
	})
}

// disk is what the host under siege has on the disk, in bytes.
func (s *httpSiege) disk() (total int64) {
	s.Helper()
	s.must(filepath.WalkDir(filepath.Join(s.a.Dir, "data"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return ignoreGone(err)
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return ignoreGone(err)
	}))
	return total
}

// ignoreGone is for files that go while they are looked at.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
