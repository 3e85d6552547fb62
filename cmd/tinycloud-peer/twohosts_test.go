package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

const (
	bootstrapTo = "TINYCLOUD_P2P_BOOTSTRAP="
	joinTimeout = "TINYCLOUD_P2P_JOIN_TIMEOUT="
	announceAs  = "TINYCLOUD_P2P_ANNOUNCE="
)

// settings is the key that all apps here load, or create with defaults.
const settings = "settings"

// user is somebody whose phone uses one host, and whose laptop comes to use a second one.
type user struct {
	phone, laptop *cluster.App
	saved         map[string]map[string]string // by Space and key: what the phone was acknowledged last
}

// newUser makes a user with Spaces of some names, or with those of the SDK.
func (g *group) newUser(spaces ...string) *user {
	w := captest.RandomWallet()
	u := &user{phone: cluster.NewApp(w), laptop: cluster.NewApp(w), saved: map[string]map[string]string{}}
	if len(spaces) > 0 {
		u.phone.Spaces, u.laptop.Spaces = spaces, spaces
	}
	g.Cleanup(func() { u.phone.Close(); u.laptop.Close() })
	return u
}

// newUsers makes users who use a host by their phones and have saved some values there: the first one, the second two,
// and so on up to ten.
func (g *group) newUsers(n int, first *cluster.Peer, spaces ...string) []*user {
	g.Helper()
	users := make([]*user, n)
	for i := range users {
		users[i] = g.newUser(spaces...)
	}
	g.must(atOnce(4, users, func(i int, u *user) error { return u.use(g.ctx, first, 1+i%10) }))
	return users
}

// atOnce calls f for all items, for some of them at the same time, and returns the errors.
func atOnce[T any](most int, items []T, f func(int, T) error) error {
	errs := make([]error, len(items))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(most, len(items)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(items); i = int(next.Add(1)) - 1 {
				errs[i] = f(i, items[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (u *user) names() []string {
	if u.phone.Spaces != nil {
		return u.phone.Spaces
	}
	return cluster.SDKSpaces
}

// use signs the phone in and saves values: some in the first Space, one in each other.
func (u *user) use(ctx context.Context, p *cluster.Peer, writes int) error {
	if _, err := u.phone.SignIn(ctx, p, nil); err != nil {
		return fmt.Errorf("the phone: %w", err)
	}
	for i, name := range u.names() {
		for n := range max(1, writes*(1-min(i, 1))) {
			if err := u.save(ctx, p, name, settings, fmt.Sprintf("%s of the user, %d", name, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// save saves a value by the phone.
func (u *user) save(ctx context.Context, p *cluster.Peer, space, key, value string) error {
	if err := u.phone.Save(ctx, p, space, key, []byte(value)); err != nil {
		return err
	}
	if u.saved[space] == nil {
		u.saved[space] = map[string]string{}
	}
	u.saved[space][key] = value
	return nil
}

// errAbsent says that an app was told that there is no value where there is one.
var errAbsent = errors.New("told absent")

// begin signs the laptop in at a host, and finds there what the phone saved: absence is an error.
func (u *user) begin(ctx context.Context, p *cluster.Peer, others ...*cluster.Peer) error {
	created, err := u.arrive(ctx, u.laptop, p, others...)
	errs := []error{err}
	for _, name := range created {
		if u.saved[name][settings] != "" {
			errs = append(errs, fmt.Errorf("%s/%s: %w", name, settings, errAbsent))
		}
	}
	return errors.Join(errs...)
}

// defaults is what an app writes where it finds nothing.
const defaults = "defaults"

// arrive signs an app in at a host. From the moment a Space is hosted there the app loads its settings, or creates them,
// at that host or at other processes of it. It returns the Spaces in which it did create them; an error is a sign-in that
// fails, a refusal, or another value than the phone saved.
func (u *user) arrive(ctx context.Context, app *cluster.App, p *cluster.Peer, others ...*cluster.Peer) (created []string, err error) {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	began := map[string]bool{}
	at := append(others, p)
	_, err = app.SignIn(ctx, p, func(space string) {
		if began[space] {
			return
		}
		began[space] = true
		at := at[len(began)%len(at)]
		wg.Go(func() {
			got, fresh, err := app.LoadOrCreate(ctx, at, space, settings, []byte(defaults))
			mu.Lock()
			defer mu.Unlock()
			switch want := u.saved[space][settings]; {
			case err != nil:
				errs = append(errs, err)
			case fresh:
				created = append(created, space)
			case string(got) != want && want != "":
				errs = append(errs, fmt.Errorf("%s/%s at %s is %q, want %q", space, settings, at.Name, got, want))
			}
		})
	})
	wg.Wait()
	if err != nil {
		errs = append(errs, fmt.Errorf("sign-in at %s: %w", p.Name, err))
	}
	for _, name := range u.names() {
		if err == nil && !began[name] {
			errs = append(errs, fmt.Errorf("%s was not hosted at %s", name, p.Name))
		}
	}
	return created, errors.Join(errs...)
}

// keeps waits until two hosts have all Spaces of a user in one state, and checks that both have all that the phone saved.
func (u *user) keeps(ctx context.Context, hosts ...*cluster.Peer) error {
	var errs []error
	for _, name := range u.names() {
		if _, err := cluster.AwaitSame(ctx, u.phone.Space(name), hosts); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", u.phone.Space(name), err))
			continue
		}
		for key, want := range u.saved[name] {
			for i, p := range hosts {
				app := u.phone
				if i > 0 {
					app = u.laptop
				}
				if got, found, err := app.Load(ctx, p, name, key); err != nil || !found || string(got) != want {
					errs = append(errs, fmt.Errorf("%s at %s is %q, %t, %w; want %q", name, p.Name, got, found, err, want))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// polite checks what the apps of a user were told: that they can't be answered yet, at most, and that there is no SQL
// here. The laptop may also have been told, as often as it loaded them, that there are no settings in some Spaces.
func (g *group) polite(u *user, created ...string) {
	g.Helper()
	var absent []string
	for _, name := range created {
		absent = append(absent, "POST /invoke get "+name+"/"+settings)
	}
	for _, a := range []*cluster.App{u.phone, u.laptop} {
		for _, r := range a.Refusals() {
			sql := r.Status == http.StatusNotImplemented && strings.Contains(r.Call, "sql")
			marker := r.Status == http.StatusNotFound && strings.Contains(r.Call, "account/system/bootstrap/complete")
			if r.Status != http.StatusServiceUnavailable && !sql && !marker && !(r.Status == http.StatusNotFound && slices.Contains(absent, r.Call)) {
				g.Errorf("%s: %s: %d %.200q", r.Host, r.Call, r.Status, r.Body)
			}
		}
	}
}

// way is how a second node comes to know a first one.
type way struct {
	spaces []string // of each user; nil: those of the SDK
	// second starts the second node, for users whose phones have Spaces at the first.
	second func(g *group, first *cluster.Peer, users []*user) *cluster.Peer
	rtt    time.Duration // to the first
}

var ways = map[string]way{
	"named as a node": {second: func(g *group, first *cluster.Peer, _ []*user) *cluster.Peer {
		return g.start(bootstrapTo + g.nodeAddr(first))
	}},
	"named as a node far away": {rtt: 100 * time.Millisecond, second: func(g *group, first *cluster.Peer, _ []*user) *cluster.Peer {
		return g.start(bootstrapTo + g.nodeAddr(first))
	}},
	"named as Spaces": {spaces: []string{"default"}, second: func(g *group, first *cluster.Peer, users []*user) *cluster.Peer {
		var addrs []string
		for _, u := range users {
			v, err := first.Admin.Space(g.ctx, u.phone.Space("default"))
			g.must(err)
			addrs = append(addrs, v.Addrs[0])
		}
		return g.start(bootstrapTo + strings.Join(addrs, ","))
	}},
	"joined before it is hosted": {spaces: []string{"default"}, second: func(g *group, first *cluster.Peer, users []*user) *cluster.Peer {
		second := g.start()
		for _, u := range users {
			space := u.phone.Space("default")
			v, err := first.Admin.Space(g.ctx, space)
			g.must(err)
			out, err := second.Verb(g.ctx, "join", space.String(), v.Addrs[0]) // it fails: the owner has to sign first
			if err == nil || !strings.Contains(out, "The join is remembered") {
				g.Fatalf("join: %v\n%s", err, out)
			}
		}
		return second
	}},
	"paired": {second: func(g *group, first *cluster.Peer, _ []*user) *cluster.Peer {
		second := g.start()
		g.verb(second, "pair", g.nodeAddr(first))
		return second
	}},
	"paired by an invite": {second: func(g *group, first *cluster.Peer, _ []*user) *cluster.Peer {
		second := g.start()
		g.verb(second, "pair", g.invite(first))
		return second
	}},
}

// start starts a node of its own.
func (g *group) start(env ...string) *cluster.Peer {
	g.Helper()
	p, err := g.nodes.Add(g.ctx, env...)
	g.must(err)
	return p
}

// verb runs the program for a peer and returns what it printed.
func (g *group) verb(p *cluster.Peer, args ...string) string {
	g.Helper()
	out, err := p.Verb(g.ctx, args...)
	if err != nil {
		g.Fatalf("%s: %s: %v\n%s", p.Name, strings.Join(args, " "), err, out)
	}
	return out
}

// invite has a node make an invite and returns its line.
func (g *group) invite(p *cluster.Peer) string {
	g.Helper()
	out := strings.TrimSpace(g.verb(p, "invite"))
	lines := strings.Split(out, "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// remote moves a node behind a WAN: others are told the WAN's address in place of its own.
func (g *group) remote(p *cluster.Peer, rtt time.Duration) *cluster.WAN {
	g.Helper()
	w, err := cluster.NewWAN(g.Context(), "127.0.0.1:"+p.Port(), rtt)
	g.must(err)
	g.Cleanup(func() { _ = w.Close() })
	g.must(p.Stop())
	p.Set(announceAs + w.Addr())
	g.must(p.Start(g.ctx))
	return w
}

// scale is a number that an environment variable may set.
func scale(t *testing.T, name string, usual int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s: %q", name, text)
	}
	return n
}

// TestLoadOrCreate has users come to a second host, round after round. Their apps load their settings from the moment of
// the sign-in, and create them if they are told that there are none: they never are, and what the users had stays.
func TestLoadOrCreate(t *testing.T) {
	t.Parallel()
	rounds := scale(t, "LOAD_ROUNDS", 4)
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGroup(t, 0)
			first := g.start()
			if w.rtt > 0 {
				g.remote(first, w.rtt)
			}
			users := g.newUsers(rounds, first, w.spaces...)
			second := w.second(g, first, users)
			began := time.Now()
			var absent, gone atomic.Int64
			var slowest atomic.Int64
			err := atOnce(4, users, func(i int, u *user) error {
				began := time.Now()
				err := u.begin(g.ctx, second)
				slowest.Store(max(slowest.Load(), int64(time.Since(began))))
				if errors.Is(err, errAbsent) {
					absent.Add(1)
				}
				return err
			})
			t.Logf("%d rounds in %s, the slowest sign-in and load %s, told absent in %d", rounds, time.Since(began).Round(time.Millisecond),
				time.Duration(slowest.Load()).Round(time.Millisecond), absent.Load())
			if err != nil {
				t.Fatalf("%.2000s", err.Error())
			}
			err = atOnce(8, users, func(_ int, u *user) error {
				err := u.keeps(g.ctx, first, second)
				if err != nil {
					gone.Add(1)
				}
				return err
			})
			if err != nil {
				t.Fatalf("values are gone in %d of %d rounds: %.2000s", gone.Load(), rounds, err.Error())
			}
			for _, u := range users {
				g.polite(u)
				g.noConflicts(u, first, second)
			}
		})
	}
}
