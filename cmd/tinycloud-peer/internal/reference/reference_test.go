package reference

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

func TestMillis(t *testing.T) {
	at := time.Date(2026, 11, 23, 1, 51, 28, 398_513_199, time.UTC)
	for _, tt := range []struct {
		in   any
		want int64
	}{
		{"2026-11-23T01:51:28.398513199Z", at.UnixMilli()},
		{[]byte("2026-11-23T02:51:28.398+01:00"), at.UnixMilli()},
		{at, at.UnixMilli()},
		{"2100-01-01T00:00:00Z", time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()},
		{nil, 0},
		{"yesterday", 0},
		{7, 0},
		{"", 0},
	} {
		if got := millis(tt.in); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.in, got, tt.want)
		}
	}
}

func TestOpenColumn(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	d := &DB{aead: aead}
	good := append([]byte{sealed}, aead.Seal(make([]byte, 12), make([]byte, 12), []byte("token"), nil)...)
	if b, err := d.open(good); err != nil || string(b) != "token" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := d.open([]byte("eyJ")); err != nil || string(b) != "eyJ" {
		t.Errorf("plain: %q, %v", b, err)
	}
	for _, b := range [][]byte{{sealed}, good[:12], good[:20], append([]byte{}, append(good[:len(good)-1:len(good)-1], 0)...)} {
		if got, err := d.open(b); err == nil {
			t.Errorf("%x opens as %q", b, got)
		}
	}
	if _, err := (&DB{}).open(good); !errors.Is(err, ErrEncrypted) {
		t.Errorf("without a key: %v", err)
	}
}

// TestDirStaysInside asks for values of Spaces whose names lead elsewhere.
func TestDirStaysInside(t *testing.T) {
	for _, text := range []string{"tinycloud:pkh:eip155:1:0x0:..", "tinycloud:..:x", "tinycloud:a/b:c", "", ":", "tinycloud::", "tinycloud:/etc:passwd"} {
		if _, err := Dir(t.TempDir()).Open(t.Context(), Space{Text: text}, tinycloud.Hash{}); !errors.Is(err, tinycloud.ErrNotFound) {
			t.Errorf("%q: %v", text, err)
		}
	}
	got := Dir("blocks").Where(Space{Text: "tinycloud:pkh:eip155:1:0x7BD6:default"}, tinycloud.Sum(nil))
	if want := filepath.Join("blocks", "pkh:eip155:1:0x7BD6", "default", "rxNJufX5oaagQE3qNtzJSZvLJcmtwRK3zJqTyuQfMmI="); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestBind(t *testing.T) {
	if got := (&DB{postgres: true}).bind("a = ? AND b = ?"); got != "a = $1 AND b = $2" {
		t.Error(got)
	}
}

func FuzzColumns(f *testing.F) {
	f.Add([]byte(`{"content-type":"text/plain"}`), "2026-11-23T01:51:28Z", "tinycloud:pkh:eip155:1:0x0:default")
	f.Add([]byte{0x1e, 0x20}, "", "")
	f.Fuzz(func(t *testing.T, b []byte, when, space string) {
		if m, ok := metadata(b); ok && m == nil {
			t.Error("no metadata")
		}
		if h, ok := digest(b); ok && string(column(h)) != string(b) {
			t.Errorf("%x", b)
		}
		millis(when)
		suffix, name := split(space)
		if strings.HasPrefix(space, "tinycloud:") && strings.Count(space, ":") > 1 && suffix+":"+name != strings.TrimPrefix(space, "tinycloud:") {
			t.Errorf("%q: %q %q", space, suffix, name)
		}
	})
}
