package siwe

import (
	"fmt"
	"strconv"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// SignatureSize is the length of r ‖ s ‖ v.
const SignatureSize = 65

// Digest returns the EIP-191 hash of a text: what a wallet's personal_sign signs.
func Digest(text []byte) [32]byte {
	h := sha3.NewLegacyKeccak256()
	h.Write([]byte("\x19Ethereum Signed Message:\n" + strconv.Itoa(len(text))))
	h.Write(text)
	return [32]byte(h.Sum(nil))
}

// Recover returns the account that signed the text. Of the spellings a signature may have, one is
// accepted: v is 27 or 28 and s is in the lower half. The error is of class [tinycloud.ErrForged].
func Recover(text []byte, sig [SignatureSize]byte) (account [20]byte, err error) {
	v := sig[64]
	var s secp256k1.ModNScalar
	if v != 27 && v != 28 {
		return account, fmt.Errorf("siwe: signature v %d: %w", v, tinycloud.ErrForged)
	}
	if s.SetByteSlice(sig[32:64]) || s.IsOverHalfOrder() {
		return account, fmt.Errorf("siwe: signature s: %w", tinycloud.ErrForged)
	}
	digest := Digest(text)
	pub, _, err := ecdsa.RecoverCompact(append([]byte{v}, sig[:64]...), digest[:])
	if err != nil {
		return account, fmt.Errorf("siwe: signature: %w", tinycloud.ErrForged)
	}
	return Account(pub), nil
}

// Account returns the Ethereum account of a public key.
func Account(pub *secp256k1.PublicKey) (account [20]byte) {
	h := sha3.NewLegacyKeccak256()
	h.Write(pub.SerializeUncompressed()[1:])
	copy(account[:], h.Sum(nil)[12:])
	return account
}
