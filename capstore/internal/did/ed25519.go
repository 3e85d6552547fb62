package did

import (
	"crypto/rand"

	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519/extra/cache"
)

// rememberedKeys bounds the expanded keys held, of about 1.5 KiB each.
const rememberedKeys = 512

var (
	zip215 = &ed25519.Options{Verify: ed25519.VerifyOptionsZIP_215}

	// expanded remembers the decompressed form of recently seen keys. It saves time and decides nothing:
	// a key in it verifies as the same key outside it.
	expanded = cache.NewVerifier(cache.NewLRUCache(rememberedKeys))
)

// VerifyEd25519 reports whether sig is a signature of msg under the ZIP 215 rules. Wrong lengths are no
// signature. It is safe for concurrent use.
func VerifyEd25519(pub, msg, sig []byte) bool {
	if len(pub) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize {
		return false
	}
	if table, ok := tables.Get(publicKey(pub)); ok {
		return verifyByTable(table, BatchItem{pub, msg, sig})
	}
	if !expanded.VerifyWithOptions(pub, msg, sig, zip215) {
		return false
	}
	seen(pub)
	return true
}

// SignEd25519 returns the signature of msg by a private key, the same that package crypto/ed25519 makes, in a third of the
// time or less.
func SignEd25519(key, msg []byte) []byte { return ed25519.Sign(key, msg) }

// BatchItem is one signature to check.
type BatchItem struct{ Pub, Msg, Sig []byte }

// VerifyEd25519Batch returns, per item, what [VerifyEd25519] would. It works on the calling goroutine
// and costs least per item at some hundred items; one bad item makes it check each item alone.
func VerifyEd25519Batch(items []BatchItem) []bool {
	out := make([]bool, len(items))
	if fewKeys(items) && verifyTogether(items) {
		for i := range out {
			out[i] = true
		}
		return out
	}
	batch := ed25519.NewBatchVerifierWithCapacity(len(items))
	var at []int
	for i, it := range items {
		if len(it.Pub) != ed25519.PublicKeySize || len(it.Sig) != ed25519.SignatureSize {
			continue
		}
		expanded.AddWithOptions(batch, it.Pub, it.Msg, it.Sig, zip215)
		at = append(at, i)
	}
	if len(at) == 0 {
		return out
	}
	_, each := batch.Verify(rand.Reader)
	for j, i := range at {
		out[i] = each[j]
	}
	return out
}
