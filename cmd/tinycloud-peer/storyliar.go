package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/attack"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// lie has a stranger knock, and a host that the owner trusts say what is not true.
func (d *demo) lie(ctx context.Context) error {
	x, err := attack.New()
	if err != nil {
		return err
	}
	defer x.Close()
	at, err := d.knock(ctx, x, d.nodes.Peers()[0])
	if err != nil {
		return err
	}
	if _, err := x.Hello(ctx, at, attack.Prove(d.owner.Space)); !errors.Is(err, attack.ErrRefused) {
		return fmt.Errorf("a stranger was answered: %v", err)
	}
	d.say("A stranger who knows the Space's id knocks: refused without a word.")
	return d.betray(ctx, &liar{Client: x, Log: attack.Log{Space: d.owner.Space, Key: x.Key}, at: at})
}

// knock connects with the Space at a peer.
func (d *demo) knock(ctx context.Context, x *attack.Client, p *cluster.Peer) (peer.ID, error) {
	v, err := p.Admin.Space(ctx, d.owner.Space)
	if err != nil {
		return "", err
	}
	if len(v.Addrs) == 0 {
		return "", errors.New("no address")
	}
	return x.Dial(ctx, v.Addrs[0])
}

// liar is a host of the Space that signs whatever it likes.
type liar struct {
	*attack.Client
	attack.Log
	at peer.ID // the host it talks to
}

// betray makes the liar a host, has it claim a write that nobody signed, and sign two histories.
func (d *demo) betray(ctx context.Context, x *liar) error {
	const key = "notes/0000"
	first := d.nodes.Peers()[0]
	header := d.owner.Wallet.SignHost(d.owner.Space, x.HostKey().String())
	delegation, err := capstore.ParseDelegation(header)
	if err != nil {
		return err
	}
	heads, err := d.heads(ctx, first)
	if err != nil {
		return err
	}
	claims, err := d.claims(key, "mine now", "mine", "mine as well")
	if err != nil {
		return err
	}
	// Its own delegation, and then a claim; at last two entries where one may be.
	joined := x.Say(time.Now(), heads, attack.Event{Token: delegation.Bytes})
	claim := x.Say(time.Now(), []tinycloud.Hash{x.Last}, claims[0])
	twin := x.Log
	one := x.Say(time.Now(), []tinycloud.Hash{claim.Entry.Epoch}, claims[1])
	other := twin.Say(time.Now(), []tinycloud.Hash{claim.Entry.Epoch}, claims[2])
	d.doing("a host that the owner trusts claims a write that nobody signed")
	began := time.Now()
	for _, p := range d.nodes.Peers() {
		if err := d.claim(ctx, x, p, delegation.Bytes, attack.Batch(joined, claim, one, other)); err != nil {
			return err
		}
	}
	proven := func(_ int, p *cluster.Peer) error {
		return cluster.Poll(ctx, storyPoll, func() (bool, error) { return d.forked(ctx, p, x.ID().String()) })
	}
	if err := cluster.Each(d.nodes.Peers(), proven); err != nil {
		return err
	}
	took := time.Since(began)
	for _, p := range d.nodes.Peers() {
		if got, err := d.owner.Get(ctx, p, key); err != nil || string(got) != demoValue(0) {
			return fmt.Errorf("%s: %s is %q, %w", p.Name, key, got, err)
		}
	}
	d.say("A trusted host claims a write that nobody signed: void everywhere.")
	d.say("It signs two histories: %s later every host has the proof.", ms(took))
	return d.removeLiar(ctx, x, header, delegation.Bytes)
}

// claim has the liar, as a host, tell a peer something.
func (d *demo) claim(ctx context.Context, x *liar, p *cluster.Peer, chain, batch []byte) error {
	at, err := d.knock(ctx, x.Client, p)
	if err != nil {
		return err
	}
	if _, err := x.Hello(ctx, at, attack.Prove(d.owner.Space, chain)); err != nil {
		return err
	}
	gossip, err := x.Gossip(ctx, at)
	if err != nil {
		return err
	}
	return gossip.Say(batch)
}

// claims are writes to a key by tokens that are for reading it.
func (d *demo) claims(key string, values ...string) (events []attack.Event, err error) {
	for _, value := range values {
		read, err := capstore.ParseInvocation(d.owner.Token("kv/"+key, "tinycloud.kv/get"))
		if err != nil {
			return nil, err
		}
		events = append(events, attack.Event{Token: read.Bytes, Ops: [][]byte{attack.Write(key, tinycloud.Sum([]byte(value)))}})
	}
	return events, nil
}

// removeLiar has the owner remove the liar: it is a stranger then.
func (d *demo) removeLiar(ctx context.Context, x *liar, header string, chain []byte) error {
	if err := d.owner.RevokeHost(ctx, d.nodes.Peers()[0], header); err != nil {
		return err
	}
	err := cluster.Poll(ctx, 5*time.Millisecond, func() (bool, error) {
		x.Hang(x.at)
		if _, err := d.knock(ctx, x.Client, d.nodes.Peers()[0]); err != nil {
			return true, nil // the door is shut
		}
		_, err := x.Hello(ctx, x.at, attack.Prove(d.owner.Space, chain))
		return err != nil, nil
	})
	if err != nil {
		return err
	}
	d.say("The owner removes it: refused from now on.")
	return nil
}

// heads are the ends of the history that a peer has.
func (d *demo) heads(ctx context.Context, p *cluster.Peer) (heads []tinycloud.Hash, err error) {
	v, err := p.Admin.Space(ctx, d.owner.Space)
	for _, text := range v.Heads {
		h, parse := tinycloud.ParseCID(text)
		heads, err = append(heads, h), errors.Join(err, parse)
	}
	return heads, err
}

// forked tells whether a peer has the proof that a host signed two histories.
func (d *demo) forked(ctx context.Context, p *cluster.Peer, host string) (bool, error) {
	v, err := p.Admin.Space(ctx, d.owner.Space)
	if err != nil {
		return false, err
	}
	for _, h := range v.Hosts {
		if h.PeerID == host {
			return h.Forked, nil
		}
	}
	return false, nil
}
