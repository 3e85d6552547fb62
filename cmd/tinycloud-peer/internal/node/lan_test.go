package node_test

import (
	"bytes"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

func lanInfo(tb testing.TB) peer.AddrInfo {
	tb.Helper()
	id, err := peer.Decode("12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5")
	if err != nil {
		tb.Fatal(err)
	}
	info := peer.AddrInfo{ID: id}
	for range 40 { // more than are said
		info.Addrs = append(info.Addrs, ma.StringCast("/ip4/192.0.2.123/udp/40001/quic-v1"))
	}
	return info
}

func TestLANIsSealed(t *testing.T) {
	secret, info := tinycloud.Sum([]byte("secret")), lanInfo(t)
	sealed := node.SealLAN(secret, info)
	if len(sealed) > 1000 {
		t.Errorf("%d bytes do not fit a packet", len(sealed))
	}
	got, ok := node.OpenLAN(secret, sealed)
	if !ok || got.ID != info.ID || len(got.Addrs) != 16 {
		t.Errorf("opened %v, %v", got, ok)
	}
	if bytes.Contains(sealed, []byte(info.ID)) || bytes.Contains(sealed, []byte("192.0.2.123")) {
		t.Error("the node is named")
	}
	if _, ok := node.OpenLAN(tinycloud.Sum([]byte("another")), sealed); ok {
		t.Error("opened with another secret")
	}
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		if _, ok := node.OpenLAN(secret, b); ok {
			t.Fatalf("byte %d changed and accepted", i)
		}
	}
}

func FuzzLANPayload(f *testing.F) {
	secret := tinycloud.Sum([]byte("secret"))
	f.Add(node.SealLAN(secret, lanInfo(f)))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) { node.OpenLAN(secret, b) })
}
