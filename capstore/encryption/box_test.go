package encryption_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
)

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// smallOrder are points with which anybody shares a secret, in every spelling that X25519 takes.
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
}

func TestUnwrapRefuses(t *testing.T) {
	private := bytes.Repeat([]byte{7}, 32)
	pub, err := encryption.Public(private)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte{0xcd}, 32)
	good, err := encryption.Wrap(rand.Reader, pub, data)
	if err != nil || len(good) != 93 {
		t.Fatal(len(good), err)
	}
	if got, err := encryption.Unwrap(private, good); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%x, %v", got, err)
	}
	if empty, err := encryption.Wrap(rand.Reader, pub, nil); err != nil || len(empty) != 61 {
		t.Fatal(len(empty), err)
	} else if got, err := encryption.Unwrap(private, empty); err != nil || len(got) != 0 {
		t.Errorf("nothing: %x, %v", got, err)
	}
	bad := map[string][]byte{"empty": nil, "of a key alone": good[:32], "of 60 bytes": good[:60], "cut": good[:92], "longer": append(bytes.Clone(good), 0)}
	for _, i := range []int{0, 31, 33, 44, 45, 76, 92} {
		b := bytes.Clone(good)
		b[i] ^= 1
		bad["changed at "+hex.EncodeToString([]byte{byte(i)})] = b
	}
	for _, v := range []byte{0, 2, 0xff} {
		b := bytes.Clone(good)
		b[32] = v
		bad["of version "+hex.EncodeToString([]byte{v})] = b
	}
	for _, p := range smallOrder {
		bad["from "+p] = append(fromHex(t, p), good[32:]...)
	}
	for what, b := range bad {
		if got, err := encryption.Unwrap(private, b); err == nil {
			t.Errorf("%s: %x", what, got)
		} else if strings.Contains(err.Error(), "07070707") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, p := range append(smallOrder, "", "00", strings.Repeat("09", 33)) {
		if w, err := encryption.Wrap(rand.Reader, fromHex(t, p), data); err == nil {
			t.Errorf("sealed to %s: %x", p, w)
		}
	}
}

// FuzzUnwrap: nothing opens but what was sealed to the key.
func FuzzUnwrap(f *testing.F) {
	private := bytes.Repeat([]byte{7}, 32)
	pub, err := encryption.Public(private)
	if err != nil {
		f.Fatal(err)
	}
	good, err := encryption.Wrap(bytes.NewReader(bytes.Repeat([]byte{9}, 64)), pub, bytes.Repeat([]byte{0xcd}, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:61])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, w []byte) {
		got, err := encryption.Unwrap(private, w)
		// X25519 ignores the highest bit of a point.
		same := len(w) == len(good) && bytes.Equal(append(bytes.Clone(w[:31]), w[31]&0x7f), good[:32]) && bytes.Equal(w[32:], good[32:])
		if (err == nil) != same {
			t.Errorf("%x: %x, %v", w, got, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	key := bytes.Repeat([]byte{7}, 32)
	good, err := encryption.Box(bytes.NewReader(bytes.Repeat([]byte{9}, 12)), key, []byte("text"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:29])
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := encryption.Open(key, b); (err == nil) != bytes.Equal(b, good) {
			t.Errorf("%x: %q, %v", b, got, err)
		}
	})
}
