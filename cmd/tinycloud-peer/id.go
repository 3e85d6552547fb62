package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

type idCmd struct {
	Space tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	answer
}

// identity is who a node is in a Space.
type identity struct {
	DID    string   `json:"did"`
	PeerID string   `json:"peerId"`
	Addrs  []string `json:"addrs"`
}

// Run asks the running node; without one it derives the keys, and there are no addresses.
func (c *idCmd) Run(ctx context.Context, p *program) error {
	me, err := c.ask(ctx, p)
	if errors.Is(err, admin.ErrNotRunning) {
		fmt.Fprintln(p.err, "The node is not running: it has no addresses now.")
		me, err = c.derive(p)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, me)
	}
	fmt.Fprintf(p.out, "did   %s\npeer  %s\n", me.DID, me.PeerID)
	for _, a := range me.Addrs {
		fmt.Fprintf(p.out, "addr  %s\n", a)
	}
	return nil
}

func (c *idCmd) ask(ctx context.Context, p *program) (identity, error) {
	client, _, err := p.node()
	if err != nil {
		return identity{}, err
	}
	// A Space that is hosted may have listeners of its own.
	if v, err := client.Space(ctx, c.Space); err == nil {
		return identity{DID: v.DID, PeerID: v.PeerID, Addrs: v.Addrs}, nil
	} else if !errors.Is(err, tinycloud.ErrNotFound) {
		return identity{}, err
	}
	did, err := client.HostDID(ctx, c.Space)
	if err != nil {
		return identity{}, err
	}
	info, err := client.Node(ctx)
	if err != nil {
		return identity{}, err
	}
	key, err := hostkeys.ParseHostDID(did)
	if err != nil {
		return identity{}, err
	}
	me, err := identify(key)
	for _, front := range info.Addrs {
		me.Addrs = append(me.Addrs, front+"/p2p-circuit/p2p/"+me.PeerID)
	}
	return me, err
}

// derive computes the key from the secret, which it doesn't make: another directory's would be no one's.
func (c *idCmd) derive(p *program) (identity, error) {
	cfg, _, err := p.load()
	if err != nil {
		return identity{}, err
	}
	if cfg.Keys.Secret.IsZero() {
		if _, err := os.Stat(cfg.SecretFile()); err != nil {
			return identity{}, fmt.Errorf("no secret yet: %w", err)
		}
	}
	secret, _, err := cfg.ResolveSecret()
	if err != nil {
		return identity{}, err
	}
	keys, err := hostkeys.New(secret.Bytes())
	if err != nil {
		return identity{}, err
	}
	return identify(keys.SpaceKey(c.Space).Public().(ed25519.PublicKey))
}

func identify(key ed25519.PublicKey) (identity, error) {
	id, err := p2p.PeerIDFromEd25519(key)
	return identity{DID: hostkeys.DIDKey(key), PeerID: id.String(), Addrs: []string{}}, err
}
