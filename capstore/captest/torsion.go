package captest

import (
	"crypto/ed25519"
	"crypto/sha512"

	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/curve/scalar"
)

// SignWithTorsion returns a signature whose first half has a point of order 4 added to it, as only the holder of the
// key can make one. It is valid by ZIP 215, which multiplies by the cofactor, and invalid to crypto/ed25519, which
// doesn't.
func SignWithTorsion(key ed25519.PrivateKey, msg []byte) []byte {
	expanded := sha512.Sum512(key.Seed())
	expanded[0] &= 248
	expanded[31] = expanded[31]&127 | 64
	secret := must(scalar.NewFromBytesModOrder(expanded[:32]))
	nonce := wide(expanded[32:], msg)
	var order4 curve.CompressedEdwardsY // y = 0
	torsion := must(curve.NewEdwardsPoint().SetCompressedY(&order4))
	first := curve.NewEdwardsPoint().MulBasepoint(curve.ED25519_BASEPOINT_TABLE, nonce)
	first.Add(first, torsion)
	sig := make([]byte, ed25519.SignatureSize)
	copy(sig, curve.NewCompressedEdwardsY().SetEdwardsPoint(first)[:])
	second := scalar.New().Mul(wide(sig[:32], key.Public().(ed25519.PublicKey), msg), secret)
	if err := second.Add(second, nonce).ToBytes(sig[32:]); err != nil {
		panic(err) // the half has the right length
	}
	return sig
}

// wide is the scalar that the hash of some bytes makes.
func wide(parts ...[]byte) *scalar.Scalar {
	h := sha512.New()
	for _, p := range parts {
		_, _ = h.Write(p) // a hash returns no error
	}
	return must(scalar.NewFromBytesModOrderWide(h.Sum(nil)))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
