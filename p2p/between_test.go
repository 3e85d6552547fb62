package p2p_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// FuzzFrames reads what processes of a node say to each other. It is JSON, of which many spellings mean the same: what is read is
// written in one of them, which is read as the same again. An error keeps its class however often it is passed on.
func FuzzFrames(f *testing.F) {
	ai, err := peer.AddrInfoFromString("/ip4/192.0.2.1/tcp/4001/p2p/" + frontPeer)
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range p2p.Spoken(*ai) {
		if len(p2p.Frames(b)) == 0 {
			f.Fatalf("not read: %q", b)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add(binary.BigEndian.AppendUint32(nil, p2p.MaxFrame+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, once := range p2p.Frames(b) {
			if len(b) < 4 || binary.BigEndian.Uint32(b) > p2p.MaxFrame {
				t.Fatalf("%s of a message that is too short or too long", name)
			}
			if twice, ok := p2p.Frames(once)[name]; !ok || !bytes.Equal(once, twice) {
				t.Fatalf("%s: %q, then %q", name, once, twice)
			}
		}
		one, again := p2p.ErrorOf(b)
		for _, class := range []error{p2p.ErrUnreachable, p2p.ErrInvalid, p2p.ErrBusy, p2p.ErrClosed} {
			if errors.Is(one, class) != errors.Is(again, class) {
				t.Fatalf("%v, passed on as %v", one, again)
			}
		}
	})
}

// A message may not be longer than what is read.
func TestLongFrames(t *testing.T) {
	body := append([]byte(`{"Kind":"call"`), bytes.Repeat([]byte(" "), p2p.MaxFrame)...)
	for _, tt := range []struct {
		length int
		read   bool
	}{{p2p.MaxFrame, true}, {p2p.MaxFrame + 1, false}} {
		b := slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(tt.length)), body[:tt.length-1], []byte("}"))
		if _, ok := p2p.Frames(b)["errand"]; ok != tt.read {
			t.Errorf("%d bytes: read %t", tt.length, ok)
		}
	}
}
