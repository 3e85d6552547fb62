package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// Abilities of a session on the keys of its Space.
const (
	abilityGet = "tinycloud.kv/get"
	abilityPut = "tinycloud.kv/put"
	abilityDel = "tinycloud.kv/del"
)

// Owner is a wallet with a Space, signed in with a session key. Its methods may be called from several
// goroutines.
type Owner struct {
	Wallet  *captest.Wallet
	Space   tinycloud.SpaceID
	session *captest.SessionKey
	header  string // of the session's delegation
	http    *http.Client
}

// NewOwner makes a wallet, a Space of the given name and a session.
func NewOwner(name string) *Owner { return NewOwnerOf(captest.RandomWallet(), name) }

// NewOwnerOf is NewOwner for a wallet, which may have several Spaces.
func NewOwnerOf(w *captest.Wallet, name string) *Owner {
	o := &Owner{Wallet: w, session: captest.RandomSession()}
	o.Space = o.Wallet.Space(name)
	o.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 64}}
	o.header = o.Grant(o.session.URI())
	return o
}

// Grant is a delegation of all that a session of the owner has to another, for a day.
func (o *Owner) Grant(audience string) (header string) {
	return o.Wallet.SignDelegation(captest.DelegationOptions{
		Audience: audience, Expires: time.Now().Add(24 * time.Hour),
		Caps: captest.Caps{
			o.Space.String() + "/kv":    {abilityGet, abilityPut, abilityDel, "tinycloud.kv/list", "tinycloud.kv/metadata"},
			o.Space.String() + "/sql":   {"tinycloud.sql/read", "tinycloud.sql/write"},
			o.Space.String() + "/hooks": {"tinycloud.hooks/subscribe"},

			o.Space.String() + "/counter": {"tinycloud.counter/add", "tinycloud.counter/read"}, // see package servicetest
		},
	})
}

// Close closes idle connections.
func (o *Owner) Close() { o.http.CloseIdleConnections() }

// HostHeader returns the delegation that makes a peer a host of the Space.
func (o *Owner) HostHeader(ctx context.Context, p *Peer) (string, error) {
	did, err := p.Admin.HostDID(ctx, o.Space)
	if err != nil {
		return "", err
	}
	return o.Wallet.SignHost(o.Space, did), nil
}

// Host makes a peer a host of the Space.
func (o *Owner) Host(ctx context.Context, p *Peer) error {
	header, err := o.HostHeader(ctx, p)
	if err != nil {
		return err
	}
	done, err := p.Admin.Delegate(ctx, header)
	if err == nil && len(done.Activated) != 1 {
		err = fmt.Errorf("%s does not host %s: %+v", p.Name, o.Space, done)
	}
	return err
}

// SignIn posts the session's delegation, as a client does at the beginning and again after hosting.
func (o *Owner) SignIn(ctx context.Context, p *Peer) (d admin.Delegated, err error) {
	err = Poll(ctx, 20*time.Millisecond, func() (bool, error) {
		d, err = o.TrySignIn(ctx, p)
		if errors.Is(err, tinycloud.ErrUnavailable) { // the Space is joining there
			return false, nil
		}
		return true, err
	})
	return d, err
}

// TrySignIn is SignIn that takes no for an answer.
func (o *Owner) TrySignIn(ctx context.Context, p *Peer) (admin.Delegated, error) {
	return p.Admin.Delegate(ctx, o.header)
}

// Join has a peer replicate the Space with another.
func (o *Owner) Join(ctx context.Context, p, with *Peer) error {
	v, err := with.Admin.Space(ctx, o.Space)
	if err != nil {
		return err
	}
	_, err = p.Admin.Join(ctx, o.Space, node.JoinRequest{Addrs: v.Addrs})
	return err
}

// Put writes a value. A nil error means that the peer acknowledged it.
func (o *Owner) Put(ctx context.Context, p *Peer, key string, value []byte) error {
	_, err := o.invoke(ctx, p, abilityPut, key, value)
	return err
}

// Get reads a value; the error is of class [tinycloud.ErrNotFound] when the key has none.
func (o *Owner) Get(ctx context.Context, p *Peer, key string) ([]byte, error) {
	return o.invoke(ctx, p, abilityGet, key, nil)
}

// Delete removes a key.
func (o *Owner) Delete(ctx context.Context, p *Peer, key string) error {
	_, err := o.invoke(ctx, p, abilityDel, key, nil)
	return err
}

// RevokeSession ends the session at a peer.
func (o *Owner) RevokeSession(ctx context.Context, p *Peer) error {
	_, err := o.send(ctx, p, "/revoke", o.Wallet.SignRevocation(captest.ID(o.header)), nil)
	return err
}

// RevokeHost tells a peer that a delegation of [Owner.HostHeader] is over.
func (o *Owner) RevokeHost(ctx context.Context, p *Peer, hostHeader string) error {
	_, err := o.send(ctx, p, "/revoke", o.Wallet.SignRevocation(captest.ID(hostHeader)), nil)
	return err
}

func (o *Owner) invoke(ctx context.Context, p *Peer, ability, key string, body []byte) ([]byte, error) {
	return o.send(ctx, p, "/invoke", o.Token("kv/"+key, ability), body)
}

// Token signs an invocation of pairs of a path below the Space and an ability.
func (o *Owner) Token(pairs ...string) string {
	caps := captest.Caps{}
	for i := 0; i+1 < len(pairs); i += 2 {
		uri := o.Space.String() + "/" + pairs[i]
		caps[uri] = append(caps[uri], pairs[i+1])
	}
	return o.session.Invoke(captest.TokenOptions{Caps: caps, Proofs: []tinycloud.Hash{captest.ID(o.header)}})
}

// Answer is a whole HTTP response.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Call sends a request to a peer and returns whatever it answers. A token of "" is left out.
func (o *Owner) Call(ctx context.Context, p *Peer, method, path, token string, header map[string]string, body io.Reader) (Answer, error) {
	return call(ctx, o.http, p, method, path, token, header, body)
}

func call(ctx context.Context, client *http.Client, p *Peer, method, path, token string, header map[string]string, body io.Reader) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, p.URL+path, body)
	if err != nil {
		return Answer{}, err
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := client.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, string(b)}, err
}

func (o *Owner) send(ctx context.Context, p *Peer, path, token string, body []byte) ([]byte, error) {
	a, err := o.Call(ctx, p, http.MethodPost, path, token, nil, bytes.NewReader(body))
	if err == nil && a.Status != http.StatusOK {
		err = refused(p, path, a.Status, a.Body)
	}
	return []byte(a.Body), err
}

// ErrRefused says that a peer answered, and not with 200.
var ErrRefused = errors.New("refused")

func refused(p *Peer, path string, status int, answer string) error {
	class := ErrRefused
	switch status {
	case http.StatusNotFound:
		class = tinycloud.ErrNotFound
	case http.StatusUnauthorized:
		class = tinycloud.ErrUnauthorized
	case http.StatusServiceUnavailable:
		class = tinycloud.ErrUnavailable
	}
	return fmt.Errorf("%s%s answers %d %q: %w", p.Name, path, status, answer, class)
}

// Same reports whether all peers hold the Space in one state, and their views of it. Peers of different rules have the
// same entries.
func (o *Owner) Same(ctx context.Context, peers []*Peer) (bool, []node.SpaceView, error) {
	return same(ctx, o.Space, peers)
}

func same(ctx context.Context, space tinycloud.SpaceID, peers []*Peer) (bool, []node.SpaceView, error) {
	views := make([]node.SpaceView, len(peers))
	err := Each(peers, func(i int, p *Peer) (err error) {
		views[i], err = p.Admin.Space(ctx, space)
		return err
	})
	same := err == nil
	for i, v := range views {
		same = same && v.State != capstore.StateJoining && v.Epochs == views[0].Epochs && v.Wants == 0 && fmt.Sprint(v.Heads) == fmt.Sprint(views[0].Heads)
		for _, before := range views[:i] {
			same = same && v.SameState(before)
		}
	}
	return same, views, err
}

// AwaitSame waits until all peers hold the Space in one state and none waits for the others' history.
func (o *Owner) AwaitSame(ctx context.Context, peers []*Peer) ([]node.SpaceView, error) {
	return AwaitSame(ctx, o.Space, peers)
}

// AwaitSame waits until all peers hold a Space in one state and none waits for the others' history.
func AwaitSame(ctx context.Context, space tinycloud.SpaceID, peers []*Peer) ([]node.SpaceView, error) {
	var views []node.SpaceView
	err := Poll(ctx, 20*time.Millisecond, func() (ok bool, err error) {
		ok, views, err = same(ctx, space, peers)
		for _, v := range views {
			ok = ok && v.State != capstore.StateJoining
		}
		return ok, err
	})
	return views, err
}

// SessionHeader returns the delegation of the owner's session.
func (o *Owner) SessionHeader() string { return o.header }
