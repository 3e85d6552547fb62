package replication_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

func multiaddrs(texts ...string) (out []ma.Multiaddr) {
	for _, text := range texts {
		out = append(out, ma.StringCast(text))
	}
	return out
}

func texts(addrs []ma.Multiaddr) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func someNode(t testing.TB) peer.ID {
	t.Helper()
	return must(peer.Decode("12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"))
}

func TestInviteText(t *testing.T) {
	id := someNode(t)
	expires := time.Date(2026, 11, 29, 12, 0, 0, 999, time.UTC)
	i := must(replication.NewInvite(id, multiaddrs(
		"/ip4/127.0.0.1/tcp/4001", "/ip4/192.168.1.2/tcp/4001/p2p/"+id.String(), "/dns4/peer.example.org/tcp/4001",
		"/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/8.8.8.8/tcp/4001/p2p/"+id.String()+"/p2p-circuit",
	), expires))
	want := []string{"/dns4/peer.example.org/tcp/4001", "/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/192.168.1.2/tcp/4001"}
	if got := texts(i.Addrs); !slices.Equal(got, want) {
		t.Errorf("addresses %q", got)
	}
	text := i.Text()
	if !strings.HasPrefix(text, "tinycloud-pair:") || strings.ContainsAny(text, " \n\t") || len(text) > 400 {
		t.Errorf("text %q", text)
	}
	for _, spelling := range []string{text, " " + text + "\n", text[:40] + "\r\n   " + text[40:80] + "\n" + text[80:]} {
		got, err := replication.ParseInvite(spelling)
		if err != nil {
			t.Fatalf("%q: %v", spelling, err)
		}
		if got.Node != id || got.Secret != i.Secret || !got.Expires.Equal(expires.Truncate(time.Second)) || !slices.Equal(texts(got.Addrs), want) ||
			got.ID() != i.ID() {
			t.Errorf("%+v", got)
		}
	}
	other := must(replication.NewInvite(id, i.Addrs, expires))
	if other.Secret == i.Secret || other.ID() == i.ID() {
		t.Error("two invites have one secret")
	}
	if strings.Contains(fmt.Sprintf("%x", i.ID()), fmt.Sprintf("%x", i.Secret)) {
		t.Error("what is stored shows the secret")
	}
	if _, err := replication.NewInvite(id, nil, expires); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("without an address: %v", err)
	}
}

func TestParseInviteRefuses(t *testing.T) {
	i := must(replication.NewInvite(someNode(t), multiaddrs("/ip4/8.8.8.8/tcp/4001"), time.Now()))
	text := i.Text()
	circuit := i
	circuit.Addrs = multiaddrs("/ip4/8.8.8.8/tcp/4001/p2p/" + i.Node.String() + "/p2p-circuit")
	nowhere := i
	nowhere.Addrs = nil
	crowd := i
	crowd.Addrs = slices.Repeat(i.Addrs, 17)
	never := i
	never.Expires = time.Unix(-1, 0)
	for name, tt := range map[string]struct{ text, why string }{
		"nothing":           {"", "tinycloud-pair:"},
		"a multiaddr":       {"/ip4/8.8.8.8/tcp/4001/p2p/" + i.Node.String(), "tinycloud-pair:"},
		"cut off":           {text[:len(text)-5], "not whole"},
		"cut off to bytes":  {text[:len(text)-4], "not whole"},
		"more":              {text + "AAAA", "not whole"},
		"a changed bit":     {strings.Replace(text, "tinycloud-pair:h", "tinycloud-pair:i", 1), "not whole"},
		"no base64":         {text[:30] + "!" + text[31:], "not whole"},
		"padding":           {text + "=", "not whole"},
		"no address":        {nowhere.Text(), "0 addresses"},
		"too many":          {crowd.Text(), "17 addresses"},
		"a relay's address": {circuit.Text(), "not that of a node"},
		"a time before all": {never.Text(), "no time"},
		"very long":         {text + strings.Repeat(" ", 10_000), "characters"},
	} {
		_, err := replication.ParseInvite(tt.text)
		if !errors.Is(err, tinycloud.ErrInvalid) || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(tt.text) > 60 && strings.Contains(err.Error(), tt.text[40:60]) {
			t.Errorf("%s: the error shows the invite: %v", name, err)
		}
	}
}

// Only this machine can use a loopback address.
func TestLoopbackIsToldAloneOnly(t *testing.T) {
	if got := replication.PairAddrs(multiaddrs("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1")); len(got) != 2 {
		t.Errorf("%q", got)
	}
	if got := replication.PairAddrs(multiaddrs("/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1")); !slices.Equal(got, []string{"/ip4/10.0.0.1/tcp/1"}) {
		t.Errorf("%q", got)
	}
	var many []ma.Multiaddr
	for i := range 100 {
		many = append(many, ma.StringCast(fmt.Sprintf("/ip4/10.0.0.1/tcp/%d", i+1)))
	}
	if got := replication.PairAddrs(many); len(got) != 32 {
		t.Errorf("%d addresses", len(got))
	}
}

func FuzzParseInvite(f *testing.F) {
	i := must(replication.NewInvite(someNode(f), multiaddrs("/ip4/8.8.8.8/tcp/4001", "/dns4/example.org/udp/1/quic-v1"), time.Unix(1_800_000_000, 0)))
	f.Add(i.Text())
	f.Add("tinycloud-pair:hQFYIA")
	f.Fuzz(func(t *testing.T, text string) {
		i, err := replication.ParseInvite(text)
		if err != nil {
			if !errors.Is(err, tinycloud.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if got := i.Text(); got != strings.Join(strings.Fields(text), "") {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}
