package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// SDKSpaces are the Spaces that the SDK's default configuration hosts for every user; the first is an app's own.
var SDKSpaces = []string{"default", "applications", "account", "secrets", "public"}

// App is an app on one device of a user, which uses a host as the JavaScript SDK 3.0.0-beta.5 does with a key that it
// can sign with itself, but that it doesn't rest for 100 ms after it has hosted a Space. What it is told is what an app
// would be told. Its methods may be called from several goroutines.
type App struct {
	Wallet *captest.Wallet
	Now    func() time.Time // the device's clock; nil: [time.Now]
	Spaces []string         // names of those it signs in to; nil: [SDKSpaces]

	session *captest.SessionKey
	header  string // of the session's delegation, since SignIn
	http    *http.Client

	mu      sync.Mutex
	refused []Refusal // guarded by mu
}

// Refusal is an answer to an app that is neither 2xx nor expected.
type Refusal struct {
	Host   string // name of the peer
	Call   string // method, path and what it was for
	Status int
	Body   string
}

// maxRefusals is how many refusals an app remembers.
const maxRefusals = 1000

// NewApp returns an app of a wallet that is signed in nowhere.
func NewApp(w *captest.Wallet) *App {
	return &App{
		Wallet: w, session: captest.RandomSession(),
		http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 16}},
	}
}

// Close closes idle connections.
func (a *App) Close() { a.http.CloseIdleConnections() }

// Space is the wallet's Space of a name.
func (a *App) Space(name string) tinycloud.SpaceID { return a.Wallet.Space(name) }

// Refusals returns what the app was refused, in order, with one of some statuses, or at all.
func (a *App) Refusals(status ...int) []Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Refusal
	for _, r := range a.refused {
		if len(status) == 0 || slices.Contains(status, r.Status) {
			out = append(out, r)
		}
	}
	return out
}

func (a *App) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

func (a *App) spaces() []string {
	if a.Spaces == nil {
		return SDKSpaces
	}
	return a.Spaces
}

// kvAbilities are what a session may do with an app's keys.
var kvAbilities = []string{abilityPut, abilityGet, abilityDel, "tinycloud.kv/list", "tinycloud.kv/metadata"}

// sign has the wallet sign a session for some Spaces, and for the owner's encryption network as the SDK does.
func (a *App) sign(spaces ...string) string {
	caps := captest.Caps{"urn:tinycloud:encryption:" + string(a.Wallet.DID()) + ":default": {"tinycloud.encryption/decrypt"}}
	for _, name := range spaces {
		id := a.Space(name).String()
		caps[id+"/kv"] = kvAbilities
		caps[id+"/sql"] = []string{"tinycloud.sql/read", "tinycloud.sql/schema", "tinycloud.sql/write"}
		caps[id+"/hooks"] = []string{"tinycloud.hooks/subscribe"}
		caps[id+"/capabilities"] = []string{"tinycloud.capabilities/read"}
	}
	now := a.now()
	return a.Wallet.SignDelegation(captest.DelegationOptions{
		Audience: a.session.URI(), Caps: caps, IssuedAt: now, Expires: now.Add(24 * time.Hour),
	})
}

// SignedIn is what an app learns of its sign-in.
type SignedIn struct {
	Hosted    []string // names of the Spaces that were hosted, also again
	Bootstrap string   // why the bootstrap of the account ended early; "": it did not, or was not needed
}

// SignIn signs in at a host: it asks for its version, posts the session, hosts the Spaces that are not there, and posts
// the sessions again. hosted, if not nil, is called when a Space was hosted, before anything else is asked of it. An error
// is one that the SDK would throw; it doesn't ask again by itself.
func (a *App) SignIn(ctx context.Context, p *Peer, hosted func(space string)) (done SignedIn, err error) {
	all := a.spaces()
	a.header = a.sign(all...)
	if err := a.version(ctx, p); err != nil {
		return done, err
	}
	activated, err := a.post(ctx, p, "session", a.header, http.StatusNotFound)
	if err != nil {
		return done, fmt.Errorf("failed to activate session: %w", err)
	}
	host := func(name string) error {
		if err := a.host(ctx, p, name); err != nil {
			return err
		}
		done.Hosted = append(done.Hosted, name)
		if hosted != nil {
			hosted(name)
		}
		return nil
	}
	if slices.Contains(activated.Skipped, a.Space(all[0]).String()) {
		if err := host(all[0]); err != nil {
			return done, err
		}
		err = Poll(ctx, time.Second, func() (bool, error) { // its user tries again while the Space is joining
			activated, err = a.post(ctx, p, "session again", a.header)
			if errors.Is(err, tinycloud.ErrUnavailable) {
				return false, nil
			}
			return true, err
		})
		if err != nil {
			return done, err
		}
	}
	done.Bootstrap, err = a.bootstrap(ctx, p, activated, host)
	return done, err
}

// version is the check before the session is posted.
func (a *App) version(ctx context.Context, p *Peer) error {
	b, err := a.call(ctx, p, http.MethodGet, "/info", "", "", nil)
	if err != nil {
		return err
	}
	var info struct{ Protocol int }
	if err := json.Unmarshal(b.body, &info); err != nil || info.Protocol != 1 {
		return fmt.Errorf("protocol of %s: %.100s: %w", p.Name, b.body, errors.Join(err, tinycloud.ErrUnsupported))
	}
	return nil
}

// bootstrap hosts all Spaces if one is missing or the account doesn't say that it was done, and prepares the account. What
// ends it is a warning to users.
func (a *App) bootstrap(ctx context.Context, p *Peer, activated delegated, host func(string) error) (warning string, err error) {
	all := a.spaces()
	if len(all) == 1 {
		return "", nil // the app has no account
	}
	fresh := slices.ContainsFunc(all, func(name string) bool { return slices.Contains(activated.Skipped, a.Space(name).String()) })
	if !fresh {
		marker, err := a.invoke(ctx, p, "account", abilityGet, "system/bootstrap/complete", nil)
		if err != nil && marker.status == 0 {
			return "", err
		}
		if marker.status == http.StatusOK {
			return "", nil
		}
	}
	for _, name := range all {
		if err := host(name); err != nil {
			return err.Error(), nil
		}
	}
	for _, name := range all {
		done, err := a.post(ctx, p, "session of "+name, a.sign(name))
		if err == nil && len(done.Skipped) > 0 {
			err = fmt.Errorf("%s skips %v", p.Name, done.Skipped)
		}
		if err != nil {
			return err.Error(), nil
		}
	}
	if _, err := a.migrate(ctx, p); err != nil {
		return err.Error(), nil
	}
	_, err = a.invoke(ctx, p, "account", abilityPut, "system/bootstrap/complete", []byte(`{"v":1}`))
	return text(err), nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// migrate makes the tables of the account.
func (a *App) migrate(ctx context.Context, p *Peer) (reply, error) {
	at := a.Space("account").String() + "/sql/account"
	token := a.token(captest.Caps{at: {"tinycloud.sql/schema", "tinycloud.sql/write"}})
	return a.call(ctx, p, http.MethodPost, "/invoke", "sql of account", token,
		[]byte(`{"action":"batch","statements":[{"sql":"CREATE TABLE IF NOT EXISTS migrations (id TEXT PRIMARY KEY)"}]}`))
}

// host makes a peer a host of a Space.
func (a *App) host(ctx context.Context, p *Peer, name string) error {
	space := a.Space(name)
	did, err := a.call(ctx, p, http.MethodGet, "/peer/generate/"+url.PathEscape(space.String()), "", "", nil)
	if err != nil {
		return err
	}
	o := captest.HostOptions(space, string(did.body))
	o.IssuedAt = a.now()
	_, err = a.post(ctx, p, "hosting of "+name, a.Wallet.SignDelegation(o))
	return err
}

type delegated struct{ Activated, Skipped []string }

// post posts a delegation. A status that is expected says that nothing is hosted.
func (a *App) post(ctx context.Context, p *Peer, what, header string, expected ...int) (d delegated, err error) {
	b, err := a.call(ctx, p, http.MethodPost, "/delegate", what, header, nil)
	if err != nil && slices.Contains(expected, b.status) {
		for _, name := range a.spaces() {
			d.Skipped = append(d.Skipped, a.Space(name).String())
		}
		return d, nil
	}
	if err == nil {
		err = json.Unmarshal(b.body, &d)
	}
	return d, err
}

func (a *App) token(caps captest.Caps) string {
	return a.session.Invoke(captest.TokenOptions{
		Caps: caps, Proofs: []tinycloud.Hash{captest.ID(a.header)}, Expires: a.now().Add(time.Minute),
	})
}

func (a *App) invoke(ctx context.Context, p *Peer, name, ability, key string, body []byte) (reply, error) {
	_, verb, _ := strings.Cut(ability, "/")
	return a.call(ctx, p, http.MethodPost, "/invoke", verb+" "+name+"/"+key,
		a.token(captest.Caps{a.Space(name).String() + "/kv/" + key: {ability}}), body)
}

// reply is an answer; status is 0 if there was none.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// call sends one request; what is not 2xx is an error and remembered, except that a key has no value.
func (a *App) call(ctx context.Context, p *Peer, method, path, what, token string, body []byte) (reply, error) {
	got, err := call(ctx, a.http, p, method, path, token, nil, bytes.NewReader(body))
	b := reply{got.Status, got.Header, []byte(got.Body)}
	if err != nil || b.status/100 == 2 {
		return b, err
	}
	a.mu.Lock()
	if len(a.refused) < maxRefusals {
		a.refused = append(a.refused, Refusal{p.Name, strings.TrimSpace(method + " " + path + " " + what), b.status, got.Body})
	}
	a.mu.Unlock()
	return b, refused(p, strings.TrimSpace(path+" "+what), b.status, got.Body)
}

// later is how long a host asks to wait, when it can't answer yet. Without a Retry-After, which an app can't go by, it is
// an error.
func later(b reply, err error) (time.Duration, error) {
	if b.status != http.StatusServiceUnavailable {
		return 0, err
	}
	seconds, bad := strconv.Atoi(b.header.Get("Retry-After"))
	if bad != nil || seconds < 0 {
		return 0, fmt.Errorf("%w; Retry-After is %q", err, b.header.Get("Retry-After"))
	}
	return time.Duration(seconds) * time.Second, nil
}

// patiently repeats a call for as long as the host says that it can't answer yet.
func patiently(ctx context.Context, once func() (reply, error)) (reply, error) {
	for {
		b, err := once()
		if err == nil {
			return b, nil
		}
		d, err := later(b, err)
		if err != nil {
			return b, err
		}
		if !wait.For(ctx, d) {
			return b, fmt.Errorf("%w; last told: %.100s", context.Cause(ctx), b.body)
		}
	}
}

// Load reads a key, and asks again while the host can't tell. found is false when the host says that it has no value,
// whatever the text: apps can't tell a Space that is not hosted from a key without a value.
func (a *App) Load(ctx context.Context, p *Peer, space, key string) (value []byte, found bool, err error) {
	b, err := patiently(ctx, func() (reply, error) { return a.invoke(ctx, p, space, abilityGet, key, nil) })
	if b.status == http.StatusNotFound {
		return nil, false, nil
	}
	return b.body, err == nil, err
}

// Save writes a key, and tries again while the host takes nothing. A nil error means that it was acknowledged.
func (a *App) Save(ctx context.Context, p *Peer, space, key string, value []byte) error {
	_, err := patiently(ctx, func() (reply, error) { return a.invoke(ctx, p, space, abilityPut, key, value) })
	return err
}

// Remove deletes a key, and tries again while the host takes nothing.
func (a *App) Remove(ctx context.Context, p *Peer, space, key string) error {
	_, err := patiently(ctx, func() (reply, error) { return a.invoke(ctx, p, space, abilityDel, key, nil) })
	return err
}

// LoadOrCreate reads a key and, when it is told that there is none, writes defaults, as apps begin. It returns what the
// app goes on with.
func (a *App) LoadOrCreate(ctx context.Context, p *Peer, space, key string, defaults []byte) (value []byte, created bool, err error) {
	value, found, err := a.Load(ctx, p, space, key)
	if err != nil || found {
		return value, false, err
	}
	return defaults, true, a.Save(ctx, p, space, key, defaults)
}
