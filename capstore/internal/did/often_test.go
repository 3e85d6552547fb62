package did_test

import (
	"bytes"
	stded25519 "crypto/ed25519"
	"fmt"
	"slices"
	"testing"

	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
)

// TestOftenSeenKeys holds that a key's table decides nothing: what is a signature with it is one without it.
func TestOftenSeenKeys(t *testing.T) {
	rule := &ed25519.Options{Verify: ed25519.VerifyOptionsZIP_215}
	check := func(pub, msg, sig []byte) {
		t.Helper()
		want := ed25519.VerifyWithOptions(pub, msg, sig, rule)
		if got := did.VerifyEd25519(pub, msg, sig); got != want {
			t.Errorf("key %x, message %x, signature %x: %v, not %v", pub, msg, sig, got, want)
		}
	}
	edge := zip215(t)
	for _, e := range edge { // each key often enough, as it has some R
		check(e.Pub, e.Msg, e.Sig)
	}
	key := stded25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	pub := []byte(key.Public().(stded25519.PublicKey))
	for i := range did.Often {
		if did.HasTable(pub) {
			t.Fatalf("a table after %d signatures", i)
		}
		msg := []byte(fmt.Sprint("message ", i))
		check(pub, msg, stded25519.Sign(key, msg))
		check(pub, msg, stded25519.Sign(key, []byte("another"))) // does not count
	}
	if !did.HasTable(pub) {
		t.Fatalf("no table after %d signatures", did.Often)
	}
	for _, e := range edge {
		for range did.Often {
			check(e.Pub, e.Msg, e.Sig)
		}
		if !did.HasTable(e.Pub) {
			t.Fatalf("no table of %x", e.Pub)
		}
		for i := range e.Sig {
			bad := slices.Clone(e.Sig)
			bad[i] ^= 1
			check(e.Pub, e.Msg, bad)
		}
		check(e.Pub, []byte("another"), e.Sig)
	}
	check(pub, []byte("m"), stded25519.Sign(key, []byte("m")))
	good := stded25519.Sign(key, []byte("m"))
	check(pub, []byte("m"), addOrder(good))
	for i := range good {
		for bit := range 8 {
			bad := slices.Clone(good)
			bad[i] ^= 1 << bit
			check(pub, []byte("m"), bad)
		}
	}
	for i := range 200 {
		msg := bytes.Repeat([]byte{byte(i)}, i)
		check(pub, msg, stded25519.Sign(key, msg))
	}
}
