package encryption

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Others are the other hosts of Spaces of secrets.
type Others interface {
	// Ask exchanges records with those of a Space that can be reached, has their keys handed over, and returns who
	// answered. The error is a refusal of class [tinycloud.ErrUnavailable] while one that may have keys for this node is
	// silent, and not yet for so long that it is not waited for.
	Ask(ctx context.Context, space tinycloud.SpaceID) (answered []hostlog.Key, err error)
	// Forward has a host answer a client's request. Its refusals are those of the host.
	Forward(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, q hostlog.DecryptRequest) (answer []byte, err error)
}

// ask asks the other hosts of an owner's secrets, if there are any.
func (n *Networks) ask(ctx context.Context, owner tinycloud.Principal) ([]hostlog.Key, error) {
	space, ok := tinycloud.SecretsOf(owner)
	if n.o.Others == nil || !ok || !n.rows.Hosted(space) {
		return nil, nil
	}
	return n.o.Others.Ask(ctx, space)
}

// ready refuses to use keys while the owner's secrets wait for the history of their other hosts, which may revoke what a
// request rests on: after a backup was restored, until they were met once, or cannot be reached.
func (n *Networks) ready(ctx context.Context, owner tinycloud.Principal) error {
	space, ok := tinycloud.SecretsOf(owner)
	if n.o.Others == nil || !ok || !n.rows.Hosted(space) || !n.rows.Waits(space) {
		return nil
	}
	answered, err := n.ask(ctx, owner)
	if err == nil && len(answered) > 0 && n.rows.Waits(space) {
		err = tinycloud.Refuse(tinycloud.ErrUnavailable, "The space of secrets waits for the history of its other hosts")
	}
	return err
}

// ofOthers describes a network of which no key is here, once others were asked: one that is revoked; or one of which a
// trusted host that answered holds a key that it does not hand over: its members begin with that host, to which requests
// are sent on. It is nil for none. What only others hold that this node does not trust is none.
func (n *Networks) ofOthers(ctx context.Context, id tinycloud.NetworkID, answered []hostlog.Key) (*Descriptor, error) {
	about, err := recordsAbout(ctx, n.rows, id)
	if err != nil {
		return nil, fmt.Errorf("encryption network: %w", err)
	}
	makers := about.makers()
	for _, m := range makers {
		members, err := n.trusted(ctx, id, about.holders(id, m.version, m.public))
		if err != nil {
			return nil, err
		}
		if !about.revoked(id) {
			members = slices.DeleteFunc(members, func(r *record) bool { return !slices.Contains(answered, r.host) })
		}
		if len(members) == 0 && !about.revoked(id) {
			continue
		}
		x := &network{id: id, state: stateActive, threshold: about.threshold(m), created: makers[len(makers)-1].time(), updated: m.time()}
		if about.revoked(id) {
			x.state = stateRevoked
		}
		x.keys = []key{{version: m.version, public: m.public}}
		d := n.describe(x, nil)
		d.Members = nil
		for _, r := range members {
			d.Members = append(d.Members, member{nodeDID(r.node), "primary"})
		}
		return &d, nil
	}
	return nil, nil
}

// trusted are those of some members that are hosts of the owner's secrets now, and whose nodes may have his keys, each
// node once.
func (n *Networks) trusted(ctx context.Context, id tinycloud.NetworkID, members set) (out set, err error) {
	hosts, err := n.hostsOf(ctx, id.Owner())
	if err != nil || len(hosts) == 0 {
		return nil, err
	}
	seen := map[hostlog.Key]bool{n.key: true}
	for _, r := range members {
		if _, hosting := hosts[r.host]; !hosting || seen[r.node] {
			continue
		}
		seen[r.node] = true
		ok, err := n.trusts(ctx, id.Owner(), r.node)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, r)
		}
	}
	return out, nil
}

// hostsOf are the hosts of an owner's secrets, none when that is not hosted here.
func (n *Networks) hostsOf(ctx context.Context, owner tinycloud.Principal) (map[hostlog.Key]bool, error) {
	space, ok := tinycloud.SecretsOf(owner)
	if !ok || !n.rows.Hosted(space) {
		return nil, nil
	}
	return n.rows.HostsOf(ctx, space)
}

// forward has the node decrypt for which a request was signed, if that is another host of the owner's secrets that says
// it has a key. The request is judged here first, as far as it does not depend on who answers: what is sent on is by
// somebody with the right to it.
func (n *Networks) forward(ctx context.Context, t *token.Token, id tinycloud.NetworkID, body []byte, invoked bool) (*Answer, error) {
	space, host, err := n.holder(ctx, t, id)
	if err != nil {
		return nil, err
	}
	if err := n.entitled(ctx, t); err != nil {
		return nil, err
	}
	if err := asks(t, AbilityDecrypt, id); err != nil {
		return nil, err
	}
	if err := timely(t, n.rows.Now()); err != nil {
		return nil, err
	}
	q := hostlog.DecryptRequest{Header: string(t.Bytes), Network: id.String(), Body: body}
	if invoked {
		q.Network = ""
	}
	text, err := n.o.Others.Forward(ctx, space, host, q)
	if err != nil {
		return nil, err
	}
	return readAnswer(text)
}

// holder finds the host whose node a token is for.
func (n *Networks) holder(ctx context.Context, t *token.Token, id tinycloud.NetworkID) (space tinycloud.SpaceID, host hostlog.Key, err error) {
	none := errAudience()
	space, ok := tinycloud.SecretsOf(id.Owner())
	if n.o.Others == nil || !ok || !n.rows.Hosted(space) {
		return space, host, none
	}
	hosts, err := n.rows.HostsOf(ctx, space)
	if err != nil {
		return space, host, err
	}
	about, err := recordsAbout(ctx, n.rows, id)
	if err != nil {
		return space, host, fmt.Errorf("encryption network: %w", err)
	}
	for _, r := range about {
		if _, hosting := hosts[r.host]; hosting && r.kind == recordMember && nodeDID(r.node) == string(t.Audience) {
			return space, r.host, nil
		}
	}
	return space, host, none
}

// AnswerFor decrypts for a client of another host of a Space of secrets, as for one of this node's own, and returns the
// JSON of the answer. What is for another node, or about a network of another owner, is refused: nothing is sent on twice.
func (n *Networks) AnswerFor(ctx context.Context, space tinycloud.SpaceID, q hostlog.DecryptRequest) ([]byte, error) {
	if len(q.Body) > MaxBody {
		return nil, tinycloud.Refuse(tinycloud.ErrTooLarge, "body of %d bytes, at most %d", len(q.Body), MaxBody)
	}
	t, err := capstore.ParseInvocation(q.Header)
	if err != nil {
		return nil, err
	}
	if string(t.Audience) != n.node {
		return nil, errAudience()
	}
	if id, ok := named(t); !ok || !space.IsSecrets() || id.Owner() != space.Owner() {
		return nil, errOther()
	}
	var a *Answer
	if q.Network == "" {
		if err := n.o.Store.Verify(ctx, t); err != nil {
			return nil, err
		}
		a, err = n.DecryptInvoked(ctx, t, q.Body)
	} else {
		a, err = n.Decrypt(ctx, t, q.Network, q.Body)
	}
	if err != nil {
		return nil, err
	}
	return canonicalOf(a)
}

// isElsewhere reports whether an invocation is for another node.
func (n *Networks) isElsewhere(t *token.Token) bool { return string(t.Audience) != n.node }

// Awaits reports whether another host of a Space of secrets may have keys that this node takes, so that its answer is
// waited for. Of a host of which no record tells its node that is so if any node is trusted.
func (n *Networks) Awaits(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key) (bool, error) {
	members, err := readRecords(ctx, n.rows, "owner = ? AND kind = ? AND host = ?", string(space.Owner()), int64(recordMember), host[:])
	if err != nil {
		return false, fmt.Errorf("encryption networks: %w", err)
	}
	for _, r := range members {
		if ok, err := n.trusts(ctx, space.Owner(), r.node); ok || err != nil {
			return ok, err
		}
	}
	switch {
	case len(members) > 0, n.o.Share == ShareOff:
		return false, nil
	case n.o.Share == ShareHosts, n.o.AnyPaired != nil && n.o.AnyPaired():
		return true, nil
	}
	approved, err := n.Approved(ctx, space.Owner())
	return len(approved) > 0, err
}

// OtherHosts returns the keys of the other hosts of a Space of secrets.
func (n *Networks) OtherHosts(ctx context.Context, space tinycloud.SpaceID) (out []hostlog.Key, err error) {
	hosts, err := n.rows.HostsOf(ctx, space)
	own := n.own(space).Host
	for h := range hosts {
		if h != own {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b hostlog.Key) int { return bytes.Compare(a[:], b[:]) })
	return out, err
}
