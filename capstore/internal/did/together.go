package did

import (
	"crypto/rand"
	"crypto/sha512"

	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/curve/scalar"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// Histories are signed by few keys, each of many signatures. Of signatures by the same key the terms with that key are one
// term of the equation that all signatures of a batch meet, where the library has one for each:
//
//	[8]( -[sum z_i s_i]B + sum [z_i]R_i + sum over keys [sum z_i k_i]A ) = 0
//
// with z_i random, of 128 bits, and k_i the hash of R_i, A and the message, as ZIP 215 has it.

// fewKeys reports whether items have so few keys that it is worth it.
func fewKeys(items []BatchItem) bool {
	keys := make(map[string]struct{}, 8)
	for _, it := range items {
		if keys[string(it.Pub)] = struct{}{}; len(keys)*2 > len(items) {
			return false
		}
	}
	return len(keys) > 0
}

// term is what the signatures of one key have in common.
type term struct {
	point curve.EdwardsPoint
	sum   scalar.Scalar // of z k
}

// verifyTogether reports whether all items are signatures under the ZIP 215 rules. It may err towards false when some are
// none: then which ones is found out by looking at each.
func verifyTogether(items []BatchItem) bool {
	random := make([]byte, 16*len(items))
	if _, err := rand.Read(random); err != nil {
		return false
	}
	points := make([]curve.EdwardsPoint, len(items))
	zs := make([]scalar.Scalar, len(items))
	keys := map[string]*term{}
	var base scalar.Scalar
	for i, it := range items {
		t := keys[string(it.Pub)]
		if t == nil {
			t = &term{}
			if !decompress(&t.point, it.Pub) {
				return false
			}
			keys[string(it.Pub)] = t
		}
		if len(it.Sig) != ed25519.SignatureSize || !scalar.ScMinimalVartime(it.Sig[32:]) || !decompress(&points[i], it.Sig[:32]) {
			return false
		}
		var s, k, product scalar.Scalar
		if _, err := s.SetBytesModOrder(it.Sig[32:]); err != nil {
			return false
		}
		if !hashed(&k, it) || !spread(&zs[i], random[16*i:16*i+16]) {
			return false
		}
		base.Add(&base, product.Mul(&zs[i], &s))
		t.sum.Add(&t.sum, product.Mul(&zs[i], &k))
	}
	base.Neg(&base)
	scalars, all := []*scalar.Scalar{&base}, []*curve.EdwardsPoint{curve.ED25519_BASEPOINT_POINT}
	for i := range items {
		scalars, all = append(scalars, &zs[i]), append(all, &points[i])
	}
	for _, t := range keys {
		scalars, all = append(scalars, &t.sum), append(all, &t.point)
	}
	var sum curve.EdwardsPoint
	return sum.MultiscalarMulVartime(scalars, all).IsSmallOrder()
}

// decompress reads a point as ZIP 215 does: in any encoding that has one.
func decompress(p *curve.EdwardsPoint, b []byte) bool {
	var y curve.CompressedEdwardsY
	if _, err := y.SetBytes(b); err != nil {
		return false
	}
	_, err := p.SetCompressedY(&y)
	return err == nil
}

// hashed sets k to the hash of a signature's R, its key and its message.
func hashed(k *scalar.Scalar, it BatchItem) bool {
	var sum [sha512.Size]byte
	h := sha512.New()
	h.Write(it.Sig[:32])
	h.Write(it.Pub)
	h.Write(it.Msg)
	_, err := k.SetBytesModOrderWide(h.Sum(sum[:0]))
	return err == nil
}

// spread sets z to a number of 128 random bits, which is not zero.
func spread(z *scalar.Scalar, random []byte) bool {
	var b [scalar.ScalarSize]byte
	if copy(b[:], random); b == [scalar.ScalarSize]byte{} {
		b[16] = 1
	}
	_, err := z.SetBits(b[:])
	return err == nil
}
