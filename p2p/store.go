package p2p

import (
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	pstore "github.com/libp2p/go-libp2p/p2p/host/peerstore"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
)

// books are what the peerstores of all Spaces of a front share: a peer is one of
// one Space, and an empty book takes up to 25 KB or a goroutine.
type books struct {
	protocols peerstore.ProtoBook
	addrs     addrBook
}

type addrBook interface {
	peerstore.AddrBook
	peerstore.CertifiedAddrBook
	io.Closer
}

func newBooks() (b books, err error) {
	if b.protocols, err = pstoremem.NewProtoBook(); err != nil {
		return b, fmt.Errorf("protocols: %w", err)
	}
	b.addrs = pstoremem.NewAddrBook()
	return b, nil
}

func (b books) Close() error {
	if b.addrs == nil {
		return nil
	}
	return b.addrs.Close()
}

// store is the peerstore of one Space.
type store struct {
	peerstore.Metrics
	peerstore.KeyBook
	peerstore.CertifiedAddrBook
	peerstore.AddrBook
	peerstore.ProtoBook
	peerstore.PeerMetadata
	self peer.ID
}

func newStore(b books, self peer.ID) *store {
	return &store{
		Metrics: pstore.NewMetrics(), KeyBook: pstoremem.NewKeyBook(), CertifiedAddrBook: b.addrs, AddrBook: b.addrs,
		ProtoBook: b.protocols, PeerMetadata: pstoremem.NewPeerMetadata(), self: self,
	}
}

// Close forgets what the Space's own host noted of itself.
func (s *store) Close() error {
	s.ClearAddrs(s.self)
	return nil
}

// Peers returns those with a key.
func (s *store) Peers() peer.IDSlice { return s.PeersWithKeys() }

// PeerInfo returns a peer with its addresses.
func (s *store) PeerInfo(id peer.ID) peer.AddrInfo { return peer.AddrInfo{ID: id, Addrs: s.Addrs(id)} }

// RemovePeer forgets everything of a peer but its addresses, which expire.
func (s *store) RemovePeer(id peer.ID) {
	s.KeyBook.RemovePeer(id)
	s.ProtoBook.RemovePeer(id)
	s.PeerMetadata.RemovePeer(id)
	s.Metrics.RemovePeer(id)
}
