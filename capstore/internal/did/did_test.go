package did_test

import (
	"bytes"
	"crypto/ecdsa"
	stded25519 "crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secp "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
)

// published are keys of the W3C did:key specification's examples and of protocol appendix A.2.
var published = []struct{ did, alg, hex string }{
	{"did:key:z6MknJEcqDELsz9E5VxPqibRLvWAUadhvjdJktrHb12cs4o8", did.EdDSA, "748da79d843015c9a2cd962a3c3f3ae82372d74f99176e2e4769200d26caef7f"},
	{"did:key:z6MknHSiKiFxvMRSNZN3fjj7Z5kp7gM27Hzbv3t5qs7K4gJY", did.EdDSA, "7459bfdb0034070f88d02f1c47e87336fbdbd3ad46cf4904345b8be40043f24d"},
	{"did:key:z6Mkhii3dc85dDjEh4T5KoSyRwnoPxUH8uEqSfmoESjUMZx8", did.EdDSA, "30882c08547f1e20f88f61e3e122f09304d9618297e5ff64451e1f0a7be473cd"},
	{"did:key:z6Mkh4zpQsEkXZBn5HQNnf9jhbY9r5gR696VDUdyxSejBGj3", did.EdDSA, "26df10c4ce4b2bb44782cfdf511ccc11c81155be89a8ee7988d3a368fa1b02b2"},
	{"did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme", did.ES256K, "03874c15c7fda20e539c6e5ba573c139884c351188799f5458b4b41f7924f235cd"},
	{"did:key:zDnaerx9CtbPJ1q36T5Ln5wYt3MQYeGRG5ehnPAmxcf5mDZpv", did.ES256, ""},
	{"did:key:zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169", did.ES256, ""},
}

func TestParsePublished(t *testing.T) {
	encode := map[string]func([]byte) string{did.EdDSA: did.EncodeEd25519, did.ES256K: did.EncodeSecp256k1, did.ES256: did.EncodeP256}
	for _, tt := range published {
		t.Run(tt.did, func(t *testing.T) {
			k, err := did.Parse(tt.did)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(k.Bytes()); tt.hex != "" && got != tt.hex {
				t.Errorf("key %s, want %s", got, tt.hex)
			}
			if k.Algorithm() != tt.alg || k.String() != tt.did || "did:key:"+k.Fragment() != tt.did {
				t.Errorf("algorithm %s of %s, want %s", k.Algorithm(), k, tt.alg)
			}
			if got := encode[tt.alg](k.Bytes()); got != tt.did {
				t.Errorf("encodes as %s", got)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, did string
		class     error
		text      string
	}{
		{"web", "did:web:example.com", tinycloud.ErrUnauthorized, "DID method not supported"},
		{"pkh", "did:pkh:eip155:1:0x7bC78e997A71263Eb87da609bB784b8FdD294af4", tinycloud.ErrUnauthorized, "DID method not supported"},
		{"jwk", "did:jwk:eyJ", tinycloud.ErrUnauthorized, "DID method not supported"},
		{"x25519", "did:key:z6LSeu9HkTHSfLLeUs2nnzUSNedgDUevfNQgQjQC23ZCit6F", tinycloud.ErrUnauthorized, "DID key type not supported"},
		{"host key of 1.0.0", "did:key:z2DYMejwHgGyU5uyDreHFEsgnme6d5i1vsLEGuq5x7jAzjg", tinycloud.ErrUnauthorized, "DID key type not supported"},
		{"fragment", "did:key:z6MknJEcqDELsz9E5VxPqibRLvWAUadhvjdJktrHb12cs4o8#z6Mkn", tinycloud.ErrInvalid, ""},
		{"base64 multibase", "did:key:mEAEB", tinycloud.ErrInvalid, ""},
		{"not base58", "did:key:z0OIl", tinycloud.ErrInvalid, ""},
		{"empty", "did:key:", tinycloud.ErrInvalid, ""},
		{"z alone", "did:key:z", tinycloud.ErrInvalid, ""},
		{"short Ed25519", did.EncodeEd25519(make([]byte, 31)), tinycloud.ErrInvalid, ""},
		{"long Ed25519", did.EncodeEd25519(make([]byte, 33)), tinycloud.ErrInvalid, ""},
		{"secp256k1 off the curve", did.EncodeSecp256k1(append([]byte{2}, make([]byte, 32)...)), tinycloud.ErrInvalid, ""},
		{"secp256k1 of 32 bytes", did.EncodeSecp256k1(make([]byte, 32)), tinycloud.ErrInvalid, ""},
		{"P-256 of 65 bytes", did.EncodeP256(make([]byte, 65)), tinycloud.ErrInvalid, ""},
		{"P-256 bad prefix", did.EncodeP256(append([]byte{4}, make([]byte, 32)...)), tinycloud.ErrInvalid, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := did.Parse(tt.did)
			if !errors.Is(err, tt.class) {
				t.Fatalf("error %v, want class %v", err, tt.class)
			}
			if tt.text != "" && err.Error() != tt.text {
				t.Errorf("text %q, want %q", err, tt.text)
			}
		})
	}
}

// signer is a key that signs the way a JWS of its algorithm does.
type signer struct {
	did, alg string
	order    *big.Int // of the ECDSA group
	sign     func(msg []byte) []byte
}

func signers(t *testing.T) []signer {
	t.Helper()
	edPub, edKey, err := stded25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k1 := secp256k1.PrivKeyFromBytes([]byte("a key of thirty-two bytes length"))
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	return []signer{
		{did.EncodeEd25519(edPub), did.EdDSA, nil, func(msg []byte) []byte { return stded25519.Sign(edKey, msg) }},
		{did.EncodeSecp256k1(k1.PubKey().SerializeCompressed()), did.ES256K, secp256k1.Params().N, func(msg []byte) []byte {
			digest := sha256.Sum256(msg)
			return secp.SignCompact(k1, digest[:], true)[1:]
		}},
		{did.EncodeP256(elliptic.MarshalCompressed(elliptic.P256(), p256.X, p256.Y)), did.ES256, n, func(msg []byte) []byte {
			digest := sha256.Sum256(msg)
			r, s, err := ecdsa.Sign(rand.Reader, p256, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			if s.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
				s.Sub(n, s)
			}
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}},
	}
}

func TestVerify(t *testing.T) {
	msg := []byte("header.payload")
	for _, s := range signers(t) {
		t.Run(s.alg, func(t *testing.T) {
			k, err := did.Parse(s.did)
			if err != nil {
				t.Fatal(err)
			}
			sig := s.sign(msg)
			if err := k.Verify(s.alg, msg, sig); err != nil {
				t.Fatalf("good signature: %v", err)
			}
			for name, bad := range map[string][]byte{
				"empty": nil, "short": sig[:63], "long": append(sig[:64:64], 0), "zero": make([]byte, 64),
			} {
				if err := k.Verify(s.alg, msg, bad); !errors.Is(err, tinycloud.ErrForged) {
					t.Errorf("%s signature: %v", name, err)
				}
			}
			for i := range sig {
				bad := append([]byte(nil), sig...)
				bad[i] ^= 1
				if k.Verify(s.alg, msg, bad) == nil {
					t.Errorf("accepts a flipped bit in byte %d", i)
				}
			}
			if k.Verify(s.alg, []byte("header.payloae"), sig) == nil {
				t.Error("accepts another message")
			}
			for _, alg := range []string{"", "none", "EdDSA", "ES256", "ES256K", "ES256K-R", "HS256", "eddsa"} {
				if err := k.Verify(alg, msg, sig); alg != s.alg && !errors.Is(err, tinycloud.ErrForged) {
					t.Errorf("algorithm %q: %v", alg, err)
				}
			}
			if s.order == nil {
				return
			}
			high := new(big.Int).Sub(s.order, new(big.Int).SetBytes(sig[32:]))
			if k.Verify(s.alg, msg, append(sig[:32:32], high.FillBytes(make([]byte, 32))...)) == nil {
				t.Error("accepts the second spelling of s")
			}
		})
	}
}

// zip215 are signatures of the empty message "Zcash" with A and R of small order and s = 0: valid by
// ZIP 215 whatever the encoding of the points, mostly invalid by RFC 8032.
func zip215(t *testing.T) []did.BatchItem {
	t.Helper()
	encodings := []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000080", // not canonical from here
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	}
	var items []did.BatchItem
	for _, a := range encodings {
		for _, r := range encodings {
			pub, err1 := hex.DecodeString(a)
			sig, err2 := hex.DecodeString(r)
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			items = append(items, did.BatchItem{Pub: pub, Msg: []byte("Zcash"), Sig: append(sig, make([]byte, 32)...)})
		}
	}
	return items
}

func TestOneRuleForEd25519(t *testing.T) {
	edge := zip215(t)
	for i, ok := range did.VerifyEd25519Batch(edge) {
		if !ok || !did.VerifyEd25519(edge[i].Pub, edge[i].Msg, edge[i].Sig) {
			t.Errorf("A %x R %x: batch says %v, alone %v; ZIP 215 accepts", edge[i].Pub, edge[i].Sig[:32], ok, !ok)
		}
		if key, err := did.Parse(did.EncodeEd25519(edge[i].Pub)); err != nil || key.Verify(did.EdDSA, edge[i].Msg, edge[i].Sig) != nil {
			t.Errorf("A %x: the key verifies otherwise", edge[i].Pub)
		}
	}
	pub, key, err := stded25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := did.BatchItem{Pub: pub, Msg: []byte("m"), Sig: stded25519.Sign(key, []byte("m"))}
	notPoint := make([]byte, 32)
	notPoint[0] = 2
	bad := []did.BatchItem{
		{Pub: pub, Msg: []byte("n"), Sig: good.Sig},
		{Pub: notPoint, Msg: []byte("m"), Sig: good.Sig},
		{Pub: pub[:31], Msg: []byte("m"), Sig: good.Sig},
		{Pub: pub, Msg: []byte("m"), Sig: good.Sig[:63]},
		{Pub: pub, Msg: []byte("m"), Sig: addOrder(good.Sig)},
		{},
	}
	for i, b := range bad {
		if did.VerifyEd25519(b.Pub, b.Msg, b.Sig) {
			t.Errorf("bad item %d passes alone", i)
		}
		got := did.VerifyEd25519Batch(append(edge[:3:3], good, b, good))
		if !got[0] || !got[3] || got[4] || !got[5] || len(got) != 6 {
			t.Errorf("bad item %d in a batch: %v", i, got)
		}
	}
	one := stded25519.NewKeyFromSeed(make([]byte, 32))
	var same []did.BatchItem
	for i := range 20 { // of two keys
		signer := key
		if i%3 == 0 {
			signer = one
		}
		msg := []byte(fmt.Sprint("message ", i))
		same = append(same, did.BatchItem{Pub: signer.Public().(stded25519.PublicKey), Msg: msg, Sig: stded25519.Sign(signer, msg)})
	}
	if got := did.VerifyEd25519Batch(same); slices.Contains(got, false) {
		t.Errorf("good signatures of two keys: %v", got)
	}
	for i, b := range append(bad, did.BatchItem{Pub: same[1].Pub, Msg: same[1].Msg, Sig: same[2].Sig}, did.BatchItem{Pub: same[0].Pub, Msg: same[1].Msg, Sig: same[1].Sig}) {
		at := (7 * i) % len(same)
		items := slices.Clone(same)
		items[at] = b
		for j, ok := range did.VerifyEd25519Batch(items) {
			if ok != (j != at) {
				t.Errorf("bad item %d at %d among signatures of two keys: %d is %v", i, at, j, ok)
			}
		}
	}
	for i := range 50 {
		msg := bytes.Repeat([]byte{byte(i)}, i)
		if !bytes.Equal(did.SignEd25519(key, msg), stded25519.Sign(key, msg)) {
			t.Errorf("signature of %x differs", msg)
		}
	}
	if got := did.VerifyEd25519Batch(nil); len(got) != 0 {
		t.Errorf("empty batch: %v", got)
	}
}

// addOrder returns the signature with s + ℓ, which means the same and must be refused.
func addOrder(sig []byte) []byte {
	order, _ := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
	s := make([]byte, 32)
	for i := range s {
		s[i] = sig[63-i]
	}
	sum := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
	out := append([]byte(nil), sig[:32]...)
	for i := range sum {
		out = append(out, sum[31-i])
	}
	return out
}

func FuzzParse(f *testing.F) {
	for _, p := range published {
		f.Add(p.did)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := did.Parse(text)
		if err != nil {
			return
		}
		encode := map[string]func([]byte) string{did.EdDSA: did.EncodeEd25519, did.ES256K: did.EncodeSecp256k1, did.ES256: did.EncodeP256}
		if k.String() != text || encode[k.Algorithm()](k.Bytes()) != text {
			t.Errorf("%q is a second spelling of %s", text, k)
		}
	})
}

func BenchmarkVerifyEd25519(b *testing.B) {
	pub, key, err := stded25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	msg := make([]byte, 600)
	sig := stded25519.Sign(key, msg)
	items := make([]did.BatchItem, 64)
	for i := range items {
		items[i] = did.BatchItem{Pub: pub, Msg: msg, Sig: sig}
	}
	b.Run("known key", func(b *testing.B) {
		for b.Loop() {
			if !did.VerifyEd25519(pub, msg, sig) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("batch of 64", func(b *testing.B) {
		for b.Loop() {
			if !did.VerifyEd25519Batch(items)[63] {
				b.Fatal("refused")
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/signature")
	})
}
