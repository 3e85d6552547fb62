package capstore_test

import (
	"errors"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// A read's token is used up also after a restart, until nobody could use it anyway. More of them than one
// transaction takes are saved, each once.
func TestReplaysSurvive(t *testing.T) { everywhere(t, testReplaysSurvive) }

func testReplaysSurvive(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	s := openNew(t, "one", c)
	var tokens []*capstore.Token
	for range 1100 {
		tokens = append(tokens, o.invoke(t, "k", "tinycloud.kv/get"))
	}
	burn := func(want error) {
		t.Helper()
		for i, tok := range tokens {
			if err := s.Burn(t.Context(), tok); !errors.Is(err, want) {
				t.Fatalf("token %d: %v, want %v", i, err, want)
			}
		}
	}
	rows := func(want int) {
		t.Helper()
		if s.path == capstore.InMemory {
			return
		}
		db := s.inspect()
		defer db.Close() //nolint:errcheck // only read
		var got int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM replays").Scan(&got); err != nil || got != want {
			t.Errorf("%d tokens are in the database, want %d: %v", got, want, err)
		}
	}
	save := func() {
		t.Helper()
		if err := s.SaveReplays(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	burn(nil)
	save()
	rows(len(tokens))
	if s.path != capstore.InMemory {
		s.stop()
		s = open(t, "one", c, s.path)
	}
	burn(tinycloud.ErrConflict)
	save()
	rows(len(tokens))
	c.ms.Add(time.Hour.Milliseconds())
	save()
	rows(0)
}

// When there is no room for all used tokens, some are forgotten, and nobody's reads are refused.
func TestReplaysAreBounded(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	s := open(t, "one", c, capstore.InMemory)
	const most = 4
	capstore.SetMostReplays(s.Store, most)
	var last *capstore.Token
	for range 20 * 16 * most {
		last = o.invoke(t, "k", "tinycloud.kv/get")
		if err := s.Burn(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if err := s.Burn(t.Context(), last); !errors.Is(err, tinycloud.ErrConflict) {
			t.Fatalf("the last one counts twice: %v", err)
		}
	}
	if remembered, unsaved := capstore.Replays(s.Store); remembered > 16*most || unsaved > 16*most {
		t.Errorf("%d are remembered, %d to be saved", remembered, unsaved)
	}
}
