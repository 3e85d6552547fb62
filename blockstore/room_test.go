package blockstore_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
)

// TestRoom refuses bytes while there is no room for them, also in the middle of a body that is written to disk.
func TestRoom(t *testing.T) {
	space, err := tinycloud.ParseSpaceID("tinycloud:pkh:eip155:1:0x7bC78e997A71263Eb87da609bB784b8FdD294af4:default")
	if err != nil {
		t.Fatal(err)
	}
	left := 0 // questions until there is none
	s, err := blockstore.Open(t.Context(), blockstore.Options{Dir: t.TempDir(), Staging: blockstore.FileSystem, Room: func() error {
		if left--; left < 0 {
			return tinycloud.Refuse(tinycloud.ErrFull, "full")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	body := bytes.Repeat([]byte("x"), 1<<20)
	stage := func() error {
		left := io.MultiReader(bytes.NewReader(body[:1<<18]), bytes.NewReader(body))
		st, err := s.Stage(t.Context(), left, 1<<30)
		if err == nil {
			st.Discard()
		}
		return err
	}
	put := func() error { return s.PutValue(t.Context(), space, tinycloud.Sum(body), body) }
	for name, f := range map[string]func() error{"stage": stage, "put": put} {
		if left = 0; !errors.Is(f(), tinycloud.ErrFull) {
			t.Errorf("%s without room", name)
		}
		if left = 1 << 20; f() != nil {
			t.Errorf("%s with room", name)
		}
	}
	if left = 3; !errors.Is(stage(), tinycloud.ErrFull) {
		t.Error("a body that ran out of room was taken")
	}
}
