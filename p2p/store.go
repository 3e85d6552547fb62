package p2p

import (
	"io"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	pstore "github.com/libp2p/go-libp2p/p2p/host/peerstore"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
)

// store is the peerstore of one Space. It differs from the library's in that
// the protocols of peers stand in a book that all Spaces share: a peer is one
// of one Space.
type store struct {
	peerstore.Metrics
	peerstore.KeyBook
	peerstore.CertifiedAddrBook
	peerstore.AddrBook
	peerstore.ProtoBook
	peerstore.PeerMetadata
	addrs io.Closer
}

func newStore(protocols peerstore.ProtoBook) *store {
	addrs := pstoremem.NewAddrBook()
	return &store{
		Metrics: pstore.NewMetrics(), KeyBook: pstoremem.NewKeyBook(), CertifiedAddrBook: addrs, AddrBook: addrs,
		ProtoBook: protocols, PeerMetadata: pstoremem.NewPeerMetadata(), addrs: addrs,
	}
}

// Close ends what expires addresses.
func (s *store) Close() error { return s.addrs.Close() }

// Peers returns those with a key or an address.
func (s *store) Peers() peer.IDSlice {
	ids := s.PeersWithKeys()
	for _, id := range s.PeersWithAddrs() {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// PeerInfo returns a peer with its addresses.
func (s *store) PeerInfo(id peer.ID) peer.AddrInfo { return peer.AddrInfo{ID: id, Addrs: s.Addrs(id)} }

// RemovePeer forgets everything of a peer but its addresses, which expire.
func (s *store) RemovePeer(id peer.ID) {
	s.KeyBook.RemovePeer(id)
	s.ProtoBook.RemovePeer(id)
	s.PeerMetadata.RemovePeer(id)
	s.Metrics.RemovePeer(id)
}
