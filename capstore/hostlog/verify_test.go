package hostlog_test

import (
	"crypto/ed25519"
	"errors"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// signedBundle is an entry with an epoch of one event that is no token, and the key of its host.
func signedBundle(t *testing.T) (b hostlog.Bundle, key ed25519.PrivateKey) {
	t.Helper()
	key = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	event := []byte("no token")
	epoch := dag.Epoch{Events: []dag.EventRef{{Event: tinycloud.Sum(event)}}}
	b = hostlog.Bundle{Epoch: epoch.Encode(), Events: [][]byte{event}}
	b.Entry = hostlog.Entry{
		Space: captest.NewWallet("alice").Space("default"), Host: hostlog.Key(key.Public().(ed25519.PublicKey)),
		Epoch: tinycloud.Sum(b.Epoch), At: 1,
	}
	b.Sig = hostlog.Sign(key, b.Entry.Digest())
	return b, key
}

// What one way of checking takes, the others do: an entry that hosts judge differently would have them ban each
// other for passing it on.
func TestSignaturesHaveOneRule(t *testing.T) {
	b, key := signedBundle(t)
	digest := b.Entry.Digest()
	msg := append([]byte("tinycloud/hostlog/1"), digest[:]...)
	torsion := hostlog.Signature(captest.SignWithTorsion(key, msg))
	if ed25519.Verify(key.Public().(ed25519.PublicKey), msg, torsion[:]) {
		t.Fatal("the standard library takes a signature with a torsion component")
	}
	other := b.Sig
	other[40] ^= 1
	for _, tt := range []struct {
		name string
		sig  hostlog.Signature
		good bool
	}{
		{"plain", b.Sig, true},
		{"torsion", torsion, true},
		{"none", hostlog.Signature{}, false},
		{"other", other, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := b
			b.Sig = tt.sig
			if got := hostlog.Verify(b.Entry.Host, digest, b.Sig); got != tt.good {
				t.Errorf("Verify: %v", got)
			}
			if c := hostlog.CheckAll(b.Entry.Space, []hostlog.Bundle{b}); (c.Bad == nil) != tt.good || (len(c.Good) == 1) != tt.good || c.Bad != nil && !errors.Is(c.Bad, tinycloud.ErrForged) {
				t.Errorf("CheckAll: %d good, %v", len(c.Good), c.Bad)
			}
		})
	}
}
