package did

import (
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/curve/scalar"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// A session's key signs every request of its app. For a key that was seen often there is a table of its multiples, as there
// is one of the base point, which makes its signatures a quarter cheaper to verify. To make one costs about what it saves
// in ten.

const (
	oftenKeys = 64      // that have tables, of 40 KiB each
	often     = 16      // signatures of a key that were good, before it gets one
	countKeys = 8 << 10 // whose signatures are counted
)

var (
	tables  = newLRU[*curve.EdwardsBasepointTable](oftenKeys)
	counted = newLRU[*atomic.Uint32](countKeys)
)

type publicKey = [ed25519.PublicKeySize]byte

func newLRU[V any](size int) *lru.Cache[publicKey, V] {
	c, err := lru.New[publicKey, V](size)
	if err != nil {
		panic(err) // the size is not positive
	}
	return c
}

// seen counts a good signature of a key, which is one of 32 bytes that is a point.
func seen(pub []byte) {
	key := publicKey(pub)
	n, ok := counted.Get(key)
	if !ok {
		n = &atomic.Uint32{}
		counted.Add(key, n)
	}
	if n.Add(1) != often {
		return
	}
	counted.Remove(key) // it may lose its table to others
	var p curve.EdwardsPoint
	if decompress(&p, pub) {
		tables.Add(key, curve.NewEdwardsBasepointTable(p.Neg(&p)))
	}
}

// verifyByTable reports whether an item, with a key and a signature of the right lengths, is a signature under the ZIP 215
// rules. Minus is the table of the key's negative. The equation is that of [verifyTogether] for one signature.
func verifyByTable(minus *curve.EdwardsBasepointTable, it BatchItem) bool {
	var r, sum, product curve.EdwardsPoint
	var s, k scalar.Scalar
	if !scalar.ScMinimalVartime(it.Sig[32:]) || !decompress(&r, it.Sig[:32]) || !hashed(&k, it) {
		return false
	}
	if _, err := s.SetBytesModOrder(it.Sig[32:]); err != nil {
		return false
	}
	sum.MulBasepoint(curve.ED25519_BASEPOINT_TABLE, &s)
	product.MulBasepoint(minus, &k)
	sum.Add(&sum, &product)
	return sum.Sub(&sum, &r).IsSmallOrder()
}
