package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// sealer is an app that seals to the owner's encryption network, with a session of its own there.
type sealer struct {
	owner   *cluster.Owner
	session *captest.SessionKey
	header  string // of its delegation
	network string
}

// newSealer has the owner delegate to the app, and tells a host of it.
func newSealer(ctx context.Context, owner *cluster.Owner, p *cluster.Peer) (*sealer, error) {
	s := &sealer{owner: owner, session: captest.RandomSession(), network: networktest.ID(owner.Wallet.DID(), "default")}
	s.header = owner.Wallet.SignDelegation(captest.DelegationOptions{
		Audience: s.session.URI(), Expires: time.Now().Add(time.Hour),
		Caps: captest.Caps{s.network: {"tinycloud.encryption/decrypt", "tinycloud.encryption/network.create"}},
	})
	_, err := p.Admin.Delegate(ctx, s.header)
	return s, err
}

// at is the app as it signs for a host.
func (s *sealer) at(ctx context.Context, p *cluster.Peer) (networktest.Client, error) {
	info, err := p.Admin.Node(ctx)
	return networktest.Client{Key: s.session, Proofs: []tinycloud.Hash{captest.ID(s.header)}, Node: info.NodeID}, err
}

func (s *sealer) call(ctx context.Context, p *cluster.Peer, method, path, token, body string) (string, error) {
	return answered(s.owner.Call(ctx, p, method, "/encryption/networks"+path, token, map[string]string{"Content-Type": "application/json"}, strings.NewReader(body)))
}

// create makes the network.
func (s *sealer) create(ctx context.Context, p *cluster.Peer) error {
	c, err := s.at(ctx, p)
	if err != nil {
		return err
	}
	q := c.Create(s.owner.Wallet.DID(), "default")
	_, err = s.call(ctx, p, http.MethodPost, "", q.Header(), q.Text())
	return err
}

// save seals a text and stores what came of it.
func (s *sealer) save(ctx context.Context, p *cluster.Peer, key, text string) error {
	described, err := s.call(ctx, p, http.MethodGet, "/"+url.PathEscape(s.network), "", "")
	if err != nil {
		return err
	}
	sealed, _, err := networktest.Encrypt(described, []byte(text))
	if err != nil {
		return err
	}
	return s.owner.Put(ctx, p, key, networktest.Canonical(sealed))
}

// open reads what is stored at a host, and has that host unseal its key.
func (s *sealer) open(ctx context.Context, p *cluster.Peer, key string) (string, error) {
	b, err := s.owner.Get(ctx, p, key)
	if err != nil {
		return "", err
	}
	var sealed networktest.Envelope
	if err := json.Unmarshal(b, &sealed); err != nil {
		return "", err
	}
	c, err := s.at(ctx, p)
	if err != nil {
		return "", err
	}
	q, receiver := c.Decrypt(sealed.NetworkID, sealed.KeyVersion, sealed.EncryptedSymmetricKey)
	header := q.Header()
	answer, err := s.call(ctx, p, http.MethodPost, "/"+url.PathEscape(s.network)+"/decrypt", header, q.Text())
	if err != nil {
		return "", err
	}
	data, err := receiver.Open(q, header, answer)
	if err != nil {
		return "", err
	}
	return sealed.Text(data)
}
