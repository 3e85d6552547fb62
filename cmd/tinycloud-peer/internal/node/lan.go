package node

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/crypto/chacha20poly1305"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

const maxLANAddrs = 16

// byLAN finds nodes by multicast DNS. What is said is sealed with the Space's rendezvous secret: others on
// the network learn neither who says it nor what.
type byLAN struct {
	front *p2p.Front
	lan   *p2p.LAN
	log   *slog.Logger
}

func (w byLAN) announce(_ context.Context, name p2p.Name, secret tinycloud.Hash, found func(peer.AddrInfo)) error {
	self := peer.AddrInfo{ID: w.front.ID(), Addrs: w.front.Host().Addrs()}
	return w.lan.Announce(name, sealLAN(secret, self), 2*announceEvery, func(payload []byte) {
		if ai, ok := openLAN(secret, payload); ok && ai.ID != self.ID {
			found(ai)
		}
	})
}

func (w byLAN) find(ctx context.Context, name p2p.Name, _ func(peer.AddrInfo)) {
	if err := w.lan.Ask(name); err != nil {
		w.log.DebugContext(ctx, "nobody asked on the local network", "error", err)
	}
}

func lanKey(secret tinycloud.Hash) []byte {
	key := tinycloud.Sum(append([]byte("tinycloud/mdns/1\x00"), secret[:]...))
	return key[:]
}

// sealLAN encrypts where a node is: a random nonce of 24 bytes, then XChaCha20-Poly1305 of a line with the
// peer and one for each address.
func sealLAN(secret tinycloud.Hash, node peer.AddrInfo) []byte {
	lines := []string{node.ID.String()}
	for _, a := range node.Addrs[:min(maxLANAddrs, len(node.Addrs))] {
		lines = append(lines, a.String())
	}
	aead, err := chacha20poly1305.NewX(lanKey(secret))
	if err != nil {
		panic(err) // the key has the right length
	}
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(nonce) // never fails
	return aead.Seal(nonce, nonce, []byte(strings.Join(lines, "\n")), nil)
}

// openLAN reads what [sealLAN] made; ok is false for anything else.
func openLAN(secret tinycloud.Hash, payload []byte) (node peer.AddrInfo, ok bool) {
	aead, err := chacha20poly1305.NewX(lanKey(secret))
	if err != nil || len(payload) < chacha20poly1305.NonceSizeX {
		return node, false
	}
	nonce, sealed := payload[:chacha20poly1305.NonceSizeX], payload[chacha20poly1305.NonceSizeX:]
	text, err := aead.Open(nil, nonce, sealed, nil)
	if err != nil {
		return node, false
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) > maxLANAddrs+1 {
		return node, false
	}
	for _, line := range lines[1:] {
		ai, err := p2p.ParseFrontAddr(line + "/p2p/" + lines[0])
		if err != nil {
			return node, false
		}
		node.ID, node.Addrs = ai.ID, append(node.Addrs, ai.Addrs...)
	}
	return node, len(node.Addrs) > 0
}
