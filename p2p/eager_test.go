package p2p_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// noiseFollows reads the choice of noise and the handshake's first message, which a dialer sends without an answer.
func noiseFollows(t *testing.T, r io.Reader) {
	t.Helper()
	const chosen, sized = "\x13/multistream/1.0.0\n\x07/noise\n", "\x00\x20"
	b := make([]byte, len(chosen+sized)+32)
	if _, err := io.ReadFull(r, b); err != nil || !strings.HasPrefix(string(b), chosen+sized) {
		t.Errorf("got %q, %v", b, err)
	}
}

// unreachable tries to connect to a Space on a front that is none.
func unreachable(t *testing.T, front peer.ID, at ma.Multiaddr) {
	t.Helper()
	a, id := newSpace(t, newFront(t, p2p.Options{})), keyID(t, newKey(t))
	err := a.Connect(testContext(t), infoOf(id, []ma.Multiaddr{at.Encapsulate(ma.StringCast("/p2p/" + front.String() + "/p2p-circuit"))}))
	if !errors.Is(err, p2p.ErrUnreachable) {
		t.Errorf("connect: %v", err)
	}
}

// Every round trip before the first byte of a Space counts from afar.
func TestDialerDoesNotWait(t *testing.T) {
	for name, answer := range map[string]string{
		"front without noise":   "\x13/multistream/1.0.0\n\x03na\n",
		"front that is no peer": "HTTP/1.1 400 Bad Request\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				noiseFollows(t, c)
				if _, err := io.WriteString(c, answer); err != nil {
					t.Error(err)
				}
				_, _ = io.Copy(io.Discard, c) // until the dialer has had enough
			}()
			at, err := manet.FromNetAddr(l.Addr())
			if err != nil {
				t.Fatal(err)
			}
			unreachable(t, keyID(t, newKey(t)), at)
			wait(t, done, "end of the connection")
		})
	}
	t.Run("space", func(t *testing.T) {
		h, err := libp2p.New(libp2p.ListenAddrStrings(tcpAddr), libp2p.DisableRelay())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		h.SetStreamHandler("/libp2p/circuit/relay/0.2.0/hop", func(s network.Stream) {
			rd := util.NewDelimitedReader(s, 4096)
			defer rd.Close()
			var req pb.HopMessage
			if err := rd.ReadMsg(&req); err != nil || req.GetType() != pb.HopMessage_CONNECT {
				t.Errorf("got %v, %v", req.GetType(), err)
			}
			noiseFollows(t, s)
			err := util.NewDelimitedWriter(s).WriteMsg(&pb.HopMessage{
				Type: pb.HopMessage_STATUS.Enum(), Status: pb.Status_NO_RESERVATION.Enum(),
			})
			if err != nil {
				t.Error(err)
			}
			_ = s.Close() // the dialer may be gone
		})
		unreachable(t, h.ID(), h.Addrs()[0])
	})
}
