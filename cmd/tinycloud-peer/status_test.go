package main

import (
	"strings"
	"testing"
	"time"

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
		want string // below the table; "": nothing
	}{
		{"nothing", node.SpaceView{}, ""},
		{"a catch-up", node.SpaceView{CatchUp: &node.CatchUpView{Entries: 4320, Total: 40_003, PerSecond: 1451.7, ETA: 95}}, "catching up: 4320 of 40003 entries, 1452/s, 1m35s left: "},
		{"one that begins", node.SpaceView{CatchUp: &node.CatchUpView{Total: 40_003}}, "catching up: 0 of 40003 entries, 0/s, ? left: "},
		{"a delegation that lasts", node.SpaceView{Expires: in(8 * 24 * time.Hour)}, ""},
		{"a delegation that ends", node.SpaceView{Expires: in(6 * 24 * time.Hour)}, "warning: this node's host delegation for " + space.String() + " expires "},
		{"a delegation that ended", node.SpaceView{Expires: in(-time.Hour)}, "warning: this node's host delegation for "},
		{"a clock that is a minute off", clock(60_000), ""},
		{"a clock that is behind", clock(-90_000), "warning: the clock of did:key:z6Mkother is 1m30s behind: "},
		{"a clock that is ahead", clock(60_600), "warning: the clock of did:key:z6Mkother is 1m1s ahead: "},
		{"a host of this version", node.SpaceView{Rules: 3, Hosts: []node.HostView{{DID: "did:key:z6Mkother", Rules: 3}}}, ""},
		{"an older host", node.SpaceView{Hosts: []node.HostView{{DID: "did:key:z6Mkother", Older: true}}}, "warning: did:key:z6Mkother has an older version "},
	} {
		tt.view.Space = space
		var out strings.Builder
		if err := printSpaces(&out, []node.SpaceView{tt.view}); err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitN(out.String(), "\n", 3)
		if got := lines[2]; !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") || strings.Count(got, "\n") > 1 {
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
		{both, "restored or forked 3:01234567/abcdef01, its clock is 1h0m0s behind"},
		{node.HostView{Older: true}, "older version"},
		{node.HostView{SkewMs: 90_000, Older: true}, "its clock is 1m30s ahead, older version"},
	} {
		if got := hostNote(tt.host); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.host, got, tt.want)
		}
	}
}
