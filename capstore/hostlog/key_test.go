package hostlog_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/multiformats/go-multibase"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

func TestKeyOf(t *testing.T) {
	want := hostlog.Key(bytes.Repeat([]byte{7}, 32))
	did := func(b ...byte) string {
		text, err := multibase.Encode(multibase.Base58BTC, b)
		if err != nil {
			t.Fatal(err)
		}
		return "did:key:" + text
	}
	for _, tt := range []struct {
		name, did string
		ok        bool
	}{
		{"standard", want.String(), true},
		{"standard, spelled out", did(append([]byte{0xed, 1}, want[:]...)...), true},
		{"multicodec of one byte", did(append([]byte{0xed}, want[:]...)...), true},
		{"another kind of key", did(append([]byte{0xe7, 1}, want[:]...)...), false},
		{"too short", did(append([]byte{0xed, 1}, want[2:]...)...), false},
		{"a byte more", did(append([]byte{0xed, 1, 0}, want[:]...)...), false},
		{"too long", "did:key:z" + strings.Repeat("1", 100), false},
		{"no key", "did:pkh:eip155:1:0x85F192Dc4Eb5AF7c5c4b785a4edfA24812b8c218", false},
		{"nothing", "", false},
	} {
		if got, ok := hostlog.KeyOf(tinycloud.Principal(tt.did)); ok != tt.ok || ok && got != want {
			t.Errorf("%s: %s, %v", tt.name, got, ok)
		}
	}
}
