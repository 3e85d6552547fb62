package p2p_test

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// newLAN opens the multicast socket of a front on loopback.
func newLAN(t *testing.T) *p2p.LAN {
	t.Helper()
	f := newFront(t, p2p.Options{})
	l, err := f.OpenLAN()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	l.Start()
	return l
}

func TestLAN(t *testing.T) {
	a, b := newLAN(t), newLAN(t)
	name, other := p2p.Name{1}, p2p.Name{2}
	heardA, heardB := make(chan string, 64), make(chan string, 64)
	into := func(c chan string) func([]byte) {
		return func(b []byte) {
			select {
			case c <- string(b):
			default:
			}
		}
	}
	long := string(bytes.Repeat([]byte("x"), 1000))
	announce := func(l *p2p.LAN, name p2p.Name, payload string, c chan string) {
		t.Helper()
		if err := l.Announce(name, []byte(payload), time.Minute, into(c)); err != nil {
			t.Fatal(err)
		}
	}
	announce(a, name, "from a", heardA)
	announce(b, other, "of another name", heardB)
	announce(b, name, long, heardB)
	if got := wait(t, heardA, "what b says at once"); got != long {
		t.Errorf("a heard %q", got)
	}
	// The first one of a was before b listened for the name.
	if err := b.Ask(name); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, heardB, "answer of a"); got != "from a" {
		t.Errorf("b heard %q", got)
	}
	if err := a.Announce(name, bytes.Repeat([]byte("x"), 1001), time.Minute, into(heardA)); !errors.Is(err, p2p.ErrInvalid) {
		t.Errorf("a payload too long: %v", err)
	}
	// Nothing is answered but names.
	for _, got := range []chan string{heardA, heardB} {
		select {
		case text := <-got:
			if text != long && text != "from a" {
				t.Errorf("heard %q", text)
			}
		default:
		}
	}
}

// Junk from the network does not stop it.
func TestLANSurvivesJunk(t *testing.T) {
	a, b := newLAN(t), newLAN(t)
	name := p2p.Name{3}
	heard := make(chan string, 64)
	if err := a.Announce(name, []byte("a"), time.Minute, func(b []byte) { heard <- string(b) }); err != nil {
		t.Fatal(err)
	}
	// To the socket's own group, on loopback.
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, junk := range [][]byte{{}, {0}, bytes.Repeat([]byte{0xff}, 500), bytes.Repeat([]byte{0xc0, 0x0c}, 200)} {
		if err := p2p.SendLAN(b, lo, junk); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Announce(name, []byte("b"), time.Minute, func([]byte) {}); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, heard, "what b says"); got != "b" {
		t.Errorf("heard %q", got)
	}
}

func FuzzLAN(f *testing.F) {
	good, err := p2p.LANAnswer(p2p.Name{1}, bytes.Repeat([]byte("x"), 600))
	if err != nil {
		f.Fatal(err)
	}
	if _, heard := p2p.ParseLAN(good); heard != 1 {
		f.Fatalf("%d answers", heard)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if asked, heard := p2p.ParseLAN(b); asked > 64 || heard > 64 {
			t.Errorf("%d questions, %d answers", asked, heard)
		}
	})
}
