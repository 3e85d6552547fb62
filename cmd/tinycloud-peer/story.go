package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

const (
	demoWrites = 60  // of which each is read everywhere
	demoMissed = 100 // while a host is down
	storyPoll  = time.Millisecond
)

// start starts the nodes, pairs them with the first by invites, and has the owner host both Spaces on all.
func (d *demo) start(ctx context.Context, peers int) error {
	for i := range peers {
		d.doing("starting host %d of %d", i+1, peers)
		p, err := d.nodes.Add(ctx)
		if err != nil {
			return err
		}
		d.say("%s  %s", p.Name, p.URL)
	}
	first := d.nodes.Peers()[0]
	d.doing("the others pair with %s, each by one line", first.Name)
	for _, p := range d.nodes.Peers()[1:] {
		invite, err := first.Admin.Invite(ctx, node.InviteRequest{Expires: "1h"})
		if err != nil {
			return err
		}
		if _, err := p.Admin.Pair(ctx, node.PairRequest{Invite: invite.Invite}); err != nil {
			return err
		}
	}
	began := time.Now()
	for _, owner := range []*cluster.Owner{d.owner, d.vault} {
		for i, p := range d.nodes.Peers() {
			if err := owner.Host(ctx, p); err != nil {
				return err
			}
			if i > 0 {
				continue
			}
			if _, err := owner.SignIn(ctx, p); err != nil {
				return err
			}
		}
		if _, err := owner.AwaitSame(ctx, d.nodes.Peers()); err != nil {
			return err
		}
	}
	d.say("Paired by one line each, they found the owner's Spaces by themselves:")
	d.say("%d ms from the first signature to equal.", time.Since(began).Milliseconds())
	return nil
}

func demoKey(n int) string   { return fmt.Sprintf("notes/%04d", n) }
func demoValue(n int) string { return fmt.Sprintf("note %d, as every node has it", n) }

// write writes notes through each node in turn, and reads every one back at all others.
func (d *demo) write(ctx context.Context) error {
	peers := d.nodes.Peers()
	lags := make([]time.Duration, demoWrites)
	for n := range lags {
		d.doing("note %d", n+1)
		if err := d.owner.Put(ctx, peers[n%len(peers)], demoKey(n), []byte(demoValue(n))); err != nil {
			return err
		}
		began := time.Now()
		if err := d.everywhere(ctx, demoKey(n), demoValue(n), peers); err != nil {
			return err
		}
		lags[n] = time.Since(began)
	}
	slices.Sort(lags)
	d.say("%d writes, each read at %d nodes: half within %s, all within %s.",
		demoWrites, len(peers), ms(lags[len(lags)/2]), ms(lags[len(lags)-1]))
	return nil
}

// everywhere waits until peers answer with a value.
func (d *demo) everywhere(ctx context.Context, key, value string, peers []*cluster.Peer) error {
	return cluster.Each(peers, func(_ int, p *cluster.Peer) error {
		return cluster.Poll(ctx, storyPoll, func() (bool, error) {
			got, err := d.owner.Get(ctx, p, key)
			return err == nil && string(got) == value, nil
		})
	})
}

// kill has a host miss what is written, and come back.
func (d *demo) kill(ctx context.Context) error {
	peers := d.nodes.Peers()
	last, others := peers[len(peers)-1], peers[:len(peers)-1]
	if err := last.Kill(); err != nil {
		return err
	}
	d.doing("%s is gone, the app writes on", last.Name)
	for n := range demoMissed {
		if err := d.owner.Put(ctx, others[n%len(others)], demoKey(demoWrites+n), []byte(demoValue(n))); err != nil {
			return err
		}
	}
	d.say("%s is gone at once (kill -9). The app writes %d notes through the others.", last.Name, demoMissed)
	began := time.Now()
	if err := last.Start(ctx); err != nil {
		return err
	}
	answers := time.Since(began)
	if _, err := d.owner.AwaitSame(ctx, peers); err != nil {
		return err
	}
	d.say("It comes back, answers after %s, and has caught up %s later.", ms(answers), ms(time.Since(began)-answers))
	return nil
}

// part cuts all ways between hosts, and mends them.
func (d *demo) part(ctx context.Context) error {
	const key = "notes/title"
	peers := d.nodes.Peers()
	a, b := peers[0], peers[1]
	for _, p := range peers {
		p.Way.Cut()
	}
	if err := d.owner.Put(ctx, a, key, []byte("Groceries")); err != nil {
		return err
	}
	if err := d.owner.Put(ctx, b, key, []byte("Shopping list")); err != nil {
		return err
	}
	d.say("%s takes \"Groceries\", and %s, later, \"Shopping list\". Neither knows.", a.Name, b.Name)
	for _, p := range peers {
		p.Way.Mend()
	}
	d.doing("the network is whole again")
	began := time.Now()
	if err := d.everywhere(ctx, key, "Shopping list", peers); err != nil {
		return err
	}
	views, err := d.owner.AwaitSame(ctx, peers)
	if err != nil {
		return err
	}
	d.say("Healed: %s later all have state %.16s.", ms(time.Since(began)), views[0].StateHash)
	lost, err := a.Admin.Conflicts(ctx, d.owner.Space)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(lost, func(c node.ConflictView) bool { return c.Key == key }) {
		return errors.New("what lost is not listed")
	}
	d.say("The later write won. The other is kept, and listed as a conflict.")
	return nil
}

// What the story keeps beside notes.
const (
	databasePath = "sql/garden"
	secretKey    = "vault/secrets/wifi"
	secretText   = "correct horse battery staple"
)

// more writes rows and a secret at the first host, and reads both at the last.
func (d *demo) more(ctx context.Context) error {
	peers := d.nodes.Peers()
	first, last := peers[0], peers[len(peers)-1]
	for _, statement := range []string{"CREATE TABLE plants (name TEXT, water TEXT)", "INSERT INTO plants VALUES ('fern', 'daily'), ('cactus', 'monthly')"} {
		if _, err := d.sql(ctx, first, "tinycloud.sql/write", "execute", statement); err != nil {
			return err
		}
	}
	began := time.Now()
	err := cluster.Poll(ctx, storyPoll, func() (bool, error) {
		got, err := d.sql(ctx, last, "tinycloud.sql/read", "query", "SELECT name FROM plants ORDER BY name")
		return err == nil && strings.Contains(got, `[["cactus"],["fern"]]`), nil
	})
	if err != nil {
		return err
	}
	d.say("SQL rows that are inserted at %s are selected at %s, %s later.", first.Name, last.Name, ms(time.Since(began)))
	return d.secret(ctx, first, last)
}

func (d *demo) sql(ctx context.Context, p *cluster.Peer, ability, action, statement string) (string, error) {
	body, err := json.Marshal(map[string]any{"action": action, "sql": statement, "params": []any{}})
	if err != nil {
		return "", err
	}
	return answered(d.owner.Call(ctx, p, http.MethodPost, "/invoke", d.owner.Token(databasePath, ability), nil, strings.NewReader(string(body))))
}

// answered is the body of an answer of 200.
func answered(a cluster.Answer, err error) (string, error) {
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("%d %s: %w", a.Status, a.Body, cmp.Or(tinycloud.ClassOf(a.Status), cluster.ErrRefused))
	}
	return a.Body, err
}

// secret has the first host make the owner's network, and the other open what was sealed to it.
func (d *demo) secret(ctx context.Context, first, other *cluster.Peer) error {
	app, err := newSealer(ctx, d.vault, first)
	if err != nil {
		return err
	}
	d.doing("the app asks %s for a network of keys", first.Name)
	err = cluster.Poll(ctx, 50*time.Millisecond, func() (bool, error) {
		err := app.create(ctx, first)
		if errors.Is(err, tinycloud.ErrUnavailable) { // another host, which may have one, does not answer yet
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return err
	}
	if err := app.save(ctx, first, secretKey, secretText); err != nil {
		return err
	}
	began := time.Now()
	d.doing("%s gets the key from %s", other.Name, first.Name)
	err = cluster.Poll(ctx, 5*time.Millisecond, func() (bool, error) {
		got, err := app.open(ctx, other, secretKey)
		return err == nil && got == secretText, nil
	})
	if err != nil {
		return err
	}
	d.say("A secret that the app seals at %s is opened at %s, %s later.", first.Name, other.Name, ms(time.Since(began)))
	d.say("No host stores it in the clear; only paired hosts have the key.")
	return nil
}

// revoke ends the session of the app.
func (d *demo) revoke(ctx context.Context) error {
	peers := d.nodes.Peers()
	first := peers[0]
	if err := d.owner.RevokeSession(ctx, first); err != nil {
		return err
	}
	began := time.Now()
	err := cluster.Each(peers, func(_ int, p *cluster.Peer) error {
		return cluster.Poll(ctx, storyPoll, func() (bool, error) {
			_, err := d.owner.Get(ctx, p, demoKey(0))
			return errors.Is(err, tinycloud.ErrUnauthorized), nil
		})
	})
	if err != nil {
		return err
	}
	d.say("Revoked at %s: within %s every host refuses its reads,", first.Name, ms(time.Since(began)))
	for _, p := range peers {
		if err := d.owner.Put(ctx, p, "notes/after", []byte("x")); !errors.Is(err, tinycloud.ErrUnauthorized) {
			return fmt.Errorf("%s still takes a write: %v", p.Name, err)
		}
	}
	d.say("and its writes. What it wrote stays, and other apps go on.")
	return nil
}
