package p2p_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// Two nodes, one Space each side, and a message. A real hello proves that the
// peer may see the Space before it is authorised.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node := func(name string, hear func(string)) (*p2p.Peer, *p2p.Topic, func() error, error) {
		seed := func(s string) ed25519.PrivateKey {
			h := sha256.Sum256([]byte(name + s))
			return ed25519.NewKeyFromSeed(h[:])
		}
		front, err := p2p.New(p2p.Options{
			Key:    seed("node"),
			Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		})
		if err != nil {
			return nil, nil, nil, err
		}
		front.Start(ctx)
		var space *p2p.Peer
		opened := make(chan struct{})
		space, err = front.Open(ctx, p2p.PeerOptions{
			Key:            seed("space"),
			HelloProtocols: []protocol.ID{"/tinycloud/hello/1"},
			Hello:          func(_ context.Context, s network.Stream) { _ = s.Close() },
			Connected: func(id peer.ID, _ network.Direction) {
				<-opened
				space.Authorise(id)
			},
		})
		if err != nil {
			return nil, nil, nil, err
		}
		close(opened)
		topic, err := space.Join("tinycloud/1", func(_ context.Context, _ peer.ID, data []byte) p2p.Verdict {
			hear(string(data))
			return p2p.Accept
		})
		return space, topic, front.Close, err
	}

	heard := make(chan string, 1)
	alice, topic, closeAlice, err := node("alice", func(string) {})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer closeAlice()
	bob, _, closeBob, err := node("bob", func(s string) { heard <- s })
	if err != nil {
		fmt.Println(err)
		return
	}
	defer closeBob()

	addr, err := p2p.ParseSpaceAddr(bob.Addrs()[0].String())
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := alice.Connect(ctx, addr); err != nil {
		fmt.Println(err)
		return
	}
	for len(topic.Peers()) == 0 && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	if err := topic.Publish(ctx, []byte("hello, bob")); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(<-heard)
	// Output: hello, bob
}
