package main

import (
	"strings"
	"testing"
	"time"

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
		{"a delegation that ends", node.SpaceView{Expires: in(6 * 24 * time.Hour)}, "warning: this node's host delegation expires "},
		{"a delegation that ended", node.SpaceView{Expires: in(-time.Hour)}, "warning: this node's host delegation expires "},
		{"a clock that is a minute off", clock(60_000), ""},
		{"a clock that is behind", clock(-90_000), "warning: the clock of z6Mkother is 1m30s behind"},
		{"a clock that is ahead", clock(60_600), "warning: the clock of z6Mkother is 1m1s ahead"},
		{"a host of this version", node.SpaceView{Rules: 3, Hosts: []node.HostView{{DID: "did:key:z6Mkother", Rules: 3}}}, ""},
		{"a removed host", node.SpaceView{Standing: capstore.StandsRemoved, Expires: in(-time.Hour)}, "removed: the owner revoked this host"},
		{"an expired host", node.SpaceView{Standing: capstore.StandsExpired}, "expired: this node's host delegation is over"},
		{"no host", node.SpaceView{Standing: capstore.StandsNone}, "no host delegation: "},
		{"a full Space", node.SpaceView{OverLimit: true, Limit: new(int64(1 << 20))}, "over limit: writes are refused, it may hold 1.0 MiB"},
		{"an older host", node.SpaceView{Hosts: []node.HostView{{DID: "did:key:z6Mkother", Older: true}}}, "warning: z6Mkother has an older version "},
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
}
