package capstore_test

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

func TestHostMessage(t *testing.T) {
	owner, host := captest.NewWallet("owner"), captest.NewSession("host").DID()
	space := owner.Space("default")
	text, err := capstore.HostMessage(space, host, "nonce0001", time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	sig := owner.SignText([]byte(text))
	header, err := capstore.SignedByOwner(text, "0x"+hex.EncodeToString(sig))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := capstore.ParseDelegation(header)
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.VerifySignature(); err != nil || !tok.HostsSpace(space) || tok.Audience != host || tok.Signer != owner.DID() {
		t.Errorf("token %+v, %v", tok, err)
	}
	raw := append([]byte(nil), sig...)
	raw[64] -= 27
	if again, err := capstore.SignedByOwner(text, hex.EncodeToString(raw)); err != nil || again != header {
		t.Errorf("v of 0 or 1: %v", err)
	}
}

func TestHostMessageRefuses(t *testing.T) {
	owner, host := captest.NewWallet("owner"), captest.NewSession("host").DID()
	now := time.Now()
	other, err := tinycloud.ParseSpaceID("tinycloud:key:z6MknnfAxVv3fUyPywdQ9RJ14XkzuMhYPza5aQD1jGkXe68s:default")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := capstore.HostMessage(other, host, "nonce0001", now); !errors.Is(err, tinycloud.ErrUnsupported) {
		t.Errorf("owner without an account: %v", err)
	}
	if _, err := capstore.HostMessage(owner.Space("a"), owner.DID(), "nonce0001", now); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("host without a key: %v", err)
	}
	text, err := capstore.HostMessage(owner.Space("a"), host, "nonce0001", now)
	if err != nil {
		t.Fatal(err)
	}
	stranger := hex.EncodeToString(captest.NewWallet("stranger").SignText([]byte(text)))
	for _, tt := range []struct {
		name, text, signature string
		want                  error
	}{
		{"another account", text, stranger, tinycloud.ErrForged},
		{"not hex", text, "0xzz", tinycloud.ErrInvalid},
		{"short", text, "0x00", tinycloud.ErrInvalid},
		{"no text", "", stranger, tinycloud.ErrInvalid},
	} {
		if _, err := capstore.SignedByOwner(tt.text, tt.signature); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
