package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// TestStatusTells checks what status says below its table: how far a catch-up is, and what an operator has to mend.
func TestStatusTells(t *testing.T) {
	space := captest.NewWallet("status").Space("default")
	in := func(d time.Duration) *time.Time { at := time.Now().Add(d); return &at }
	clock := func(ms int64) node.SpaceView {
		return node.SpaceView{Hosts: []node.HostView{{DID: "did:key:z6Mkother", SkewMs: ms}}}
	}
	for _, tt := range []struct {
		name string
		view node.SpaceView
		want string // below the table, after the Space; "": nothing
	}{
		{"nothing", node.SpaceView{}, ""},
		{"a catch-up", node.SpaceView{CatchUp: &node.CatchUpView{Entries: 4320, Total: 40_003, PerSecond: 1451.7, ETA: 95}}, "catching up: 4320 of 40003 entries, 1452/s, 1m35s left"},
		{"one that begins", node.SpaceView{CatchUp: &node.CatchUpView{Total: 40_003}}, "catching up: 0 of 40003 entries, 0/s, ? left"},
		{"a delegation that lasts", node.SpaceView{Expires: in(8 * 24 * time.Hour)}, ""},
		{"a delegation that ends", node.SpaceView{Expires: in(6 * 24 * time.Hour)}, "warning: This node's host delegation ends at "},
		{"a delegation that ended", node.SpaceView{Expires: in(-time.Hour)}, "warning: This node's host delegation ends at "},
		{"a clock that is a minute off", clock(60_000), ""},
		{"a clock that is behind", clock(-90_000), "warning: The clock of z6Mkother is 1m30s behind"},
		{"a clock that is ahead", clock(60_600), "warning: The clock of z6Mkother is 1m1s ahead"},
		{"a host of this version", node.SpaceView{Rules: 3, Hosts: []node.HostView{{DID: "did:key:z6Mkother", Rules: 3}}}, ""},
		{"a removed host", node.SpaceView{Standing: capstore.StandsRemoved, Expires: in(-time.Hour)}, "warning: The owner removed this host"},
		{"an expired host", node.SpaceView{Standing: capstore.StandsExpired}, "warning: This node's host delegation is over"},
		{"no host", node.SpaceView{Standing: capstore.StandsNone}, "The owner has not made this node a host yet"},
		{"a full Space", node.SpaceView{OverLimit: true, Limit: new(int64(1 << 20))}, "warning: The Space is over its limit: writes are refused"},
		{"an older host", node.SpaceView{Hosts: []node.HostView{{DID: "did:key:z6Mkother", Older: true}}}, "warning: z6Mkother has an older version, "},
		{"an older host with an alias", node.SpaceView{Hosts: []node.HostView{{DID: "did:key:z6Mkother", Alias: "office", Older: true}}}, "warning: office has an older version, "},
		{"a host with an older service", node.SpaceView{Hosts: []node.HostView{{DID: "did:key:z6Mkother", Behind: []string{"sql"}}}}, "warning: z6Mkother has an older version of sql"},
		{"a host that forked", node.SpaceView{Hosts: []node.HostView{{DID: "did:key:z6Mkother", Forked: true}}}, "warning: z6Mkother signed two histories"},
		{"another content", node.SpaceView{Differing: 2}, "error: 2 databases have other content"},
		{"a network of this node alone", node.SpaceView{Networks: []node.NetworkView{{Alone: true, Network: "urn:x"}}}, "warning: This node alone has the key of the encryption network urn:x"},
	} {
		tt.view.Space = space
		var out strings.Builder
		if err := (listing{}).printSpaces(&out, []node.SpaceView{tt.view}); err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitN(out.String(), "\n", 3)
		if got := strings.TrimPrefix(lines[2], (listing{}).space(space)+": "); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") || strings.Count(got, "\n") > 1 {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestPeersTells checks what peers notes of a host.
func TestPeersTells(t *testing.T) {
	forked := node.HostView{Forked: true, Forks: []node.ForkView{{N: 3, Digests: [2]string{"0123456789", "abcdef0123"}}}}
	both := forked
	both.SkewMs = -3_600_000
	for _, tt := range []struct {
		host node.HostView
		want string
	}{
		{node.HostView{}, ""},
		{forked, "restored or forked 3:01234567/abcdef01"},
		{both, "restored or forked 3:01234567/abcdef01, its clock is 1h behind"},
		{node.HostView{Older: true}, "older version"},
		{node.HostView{SkewMs: 90_000, Older: true}, "its clock is 1m30s ahead, older version"},
	} {
		if got := hostNote(tt.host); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.host, got, tt.want)
		}
	}
}

// TestTablesFit checks that what tables show of long ids fits beside the rest in 80 columns.
func TestTablesFit(t *testing.T) {
	space := captest.NewWallet("status").Space("a-name-that-is-rather-long-for-a-table")
	v := node.SpaceView{Space: space, Standing: capstore.StandsHost, State: capstore.StateSynced, Keys: 1_234_567, Bytes: 1 << 50, Wants: 123_456, OverLimit: true}
	for range 12 {
		v.Hosts = append(v.Hosts, node.HostView{Connected: true})
	}
	var out strings.Builder
	if err := (listing{}).printSpaces(&out, []node.SpaceView{v}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(line)) - 1; n > 80 && !strings.Contains(line, ": ") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 61 * time.Second: "1m1s", time.Hour: "1h", 47*time.Hour + 5*time.Minute: "47h5m", 50 * time.Hour: "2d2h", 72 * time.Hour: "3d",
	} {
		if got := span(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
	if did, ok := hostNamed([]node.HostView{{DID: "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"}}, "z6Mk…GGta2doK"); ok {
		t.Errorf("another host is named %s", did)
	}
	if _, ok := hostNamed([]node.HostView{{DID: "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"}}, "z6Mk…EGta2doK"); !ok {
		t.Error("a host is not found as it is shown")
	}
	one, two := node.HostView{DID: "did:key:z6Mkone", Alias: "office"}, node.HostView{DID: "did:key:z6Mktwo"}
	if did, ok := hostNamed([]node.HostView{two, one}, "office"); !ok || did != one.DID {
		t.Errorf("a host is not found by its alias: %q", did)
	}
	two.Alias = one.Alias
	if did, ok := hostNamed([]node.HostView{two, one}, "office"); ok {
		t.Errorf("of two hosts of a name %s is meant", did)
	}
	alike := []node.HostView{{DID: "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", PeerID: "one"}, {DID: "did:key:z6MkqaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", PeerID: "two"}}
	if did, ok := hostNamed(alike, "z6Mk…EGta2doK"); ok {
		t.Errorf("of two that are shown alike %s is named", did)
	}
	for _, h := range alike {
		if did, ok := hostNamed(alike, h.DID); !ok || did != h.DID {
			t.Errorf("%s names %q", h.DID, did)
		}
	}
}

// Who makes an encryption network may make one that tables show like another's: that names neither.
func TestNetworkNamed(t *testing.T) {
	const owner, other = "urn:tinycloud:encryption:did:pkh:eip155:1:0x12345678ffffabcd:default", "urn:tinycloud:encryption:did:pkh:eip155:1:0x12340000ffffabcd:default"
	list := []node.NetworkView{{Network: owner}, {Network: "urn:tinycloud:encryption:did:pkh:eip155:1:0x99990000ffff9999:default"}}
	shown := (listing{}).network(owner)
	if got, err := networkNamed(list, shown); err != nil || got != owner {
		t.Errorf("%s: %q, %v", shown, got, err)
	}
	if got, err := networkNamed(append(list, node.NetworkView{Network: other}), shown); err == nil || got != "" || !strings.Contains(err.Error(), other) {
		t.Errorf("%s of two: %q, %v", shown, got, err)
	}
	if _, err := networkNamed(list, "0x0000…0000:default"); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
}
