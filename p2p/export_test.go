package p2p

import (
	"bytes"
	"context"
	"fmt"
	"net"

	"github.com/ipfs/go-datastore"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	"golang.org/x/net/ipv4"
)

// Bounds that tests go to.
const (
	ProvidedNames    = providedNames
	ProvidersPerName = providersPerName
)

// NewProviders returns the store of what other nodes announce.
func NewProviders() datastore.Batching {
	return &providers{names: map[string]map[string][]byte{}}
}

// GossipOptions are those of every Space.
func GossipOptions() []pubsub.Option { return gossipOptions() }

// Conns is the number of connections of a Space peer.
func Conns(p *Peer) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Handshakes is the number of inbound connections of a Space peer that are not known yet.
func Handshakes(p *Peer) int { return len(p.transport.slots) }

// Rest looks twice whether the bitswap of a Space peer is idle, and says whether it rests.
func Rest(p *Peer) bool {
	x := p.exchange
	for range 2 {
		x.mu.Lock()
		e := x.now
		x.mu.Unlock()
		if e == nil {
			return true
		}
		x.look(e)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.now == nil
}

// ParseLAN reads a packet and counts what it asks and answers.
func ParseLAN(b []byte) (asked, heard int) {
	a, h := parseLAN(b)
	return len(a), len(h)
}

// LANAnswer is the packet that answers for a name.
func LANAnswer(name Name, payload []byte) ([]byte, error) {
	m := lanAnswer(name, payload)
	return m.Pack()
}

// SendLAN multicasts anything.
func SendLAN(l *LAN, ifi *net.Interface, b []byte) error {
	_, err := l.multi.WriteTo(b, &ipv4.ControlMessage{IfIndex: ifi.Index}, &lanGroup)
	return err
}

// StopConnect says, as a relay does, that a front wants to connect.
func StopConnect(s network.Stream, src peer.ID) error {
	return util.NewDelimitedWriter(s).WriteMsg(&pb.StopMessage{
		Type: pb.StopMessage_CONNECT.Enum(), Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: src}),
	})
}

// Waker returns what decides whether a Space peer is woken.
func Waker(fn func(context.Context, peer.ID, Caller) bool, known func(peer.ID) bool) func(context.Context, Caller, peer.ID) bool {
	return newWaker(fn, known).wake
}

// Frames reads a message as each of those that processes say to each other, and writes what was read. It returns the bytes of those that
// could be read and written.
func Frames(b []byte) map[string][]byte {
	out := map[string][]byte{}
	for name, v := range map[string]any{"errand": &errand{}, "reply": &reply{}, "said": &said{}, "told": &told{}} {
		var w bytes.Buffer
		if readMessage(bytes.NewReader(b), v) == nil && writeMessage(&w, v) == nil {
			out[name] = w.Bytes()
		}
	}
	return out
}

// MaxFrame is how many bytes such a message may have.
const MaxFrame = maxErrand

// Spoken are messages of every kind, as they are written.
func Spoken(front peer.AddrInfo) (all [][]byte) {
	id, addrs := front.ID.String(), AddrTexts(front.Addrs)
	for _, v := range []any{
		errand{Kind: errandLink},
		errand{Kind: errandStream, Front: id, Addrs: addrs, Proto: hopProtocol},
		errand{Kind: errandConnect, Front: id, Origin: []byte("192.0.2.1"), Space: id},
		errand{Kind: errandShare, Front: id, Other: id},
		errand{Kind: errandProvide, Name: make([]byte, len(Name{}))},
		errand{Kind: errandCall, Body: []byte(`{"Space":""}`)},
		reply{Yes: true, Addr: addrs[0]},
		reply{Nodes: []peer.AddrInfo{front}},
		refusal(fmt.Errorf("<busy>: %w", ErrBusy)),
		said{Partners: []string{id}, Body: []byte("{}")},
		told{Addrs: addrs, Lost: []string{id}, Body: []byte("{}")},
	} {
		var w bytes.Buffer
		if err := writeMessage(&w, v); err != nil {
			panic(err)
		}
		all = append(all, w.Bytes())
	}
	return all
}

// ErrorOf is the class of the error that a reply says an errand ended with, and of that error when it is passed on.
func ErrorOf(b []byte) (one, again error) {
	var r reply
	if readMessage(bytes.NewReader(b), &r) != nil {
		return nil, nil
	}
	if one = r.err(); one != nil {
		again = refusal(one).err()
	}
	return one, again
}
