package hostkeys_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/mr-tron/base58"
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

type spaceVector struct {
	Secret, Space, Seed, Public, DID, Legacy string
}

type vectorFile struct {
	Secrets map[string]string
	Spaces  []spaceVector
	Node    struct{ Secret, DID string }
}

func vectors(t testing.TB) vectorFile {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectorFile
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Spaces) != 4 || len(v.Secrets) != 2 {
		t.Fatalf("%d spaces, %d secrets", len(v.Spaces), len(v.Secrets))
	}
	return v
}

func (v vectorFile) static(t testing.TB, name string) *hostkeys.Static {
	t.Helper()
	secret, err := base64.RawURLEncoding.DecodeString(v.Secrets[name])
	if err != nil {
		t.Fatal(err)
	}
	s, err := hostkeys.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func spaceID(t testing.TB, text string) tinycloud.SpaceID {
	t.Helper()
	id, err := tinycloud.ParseSpaceID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(key[32:]) }

func TestVectors(t *testing.T) {
	v := vectors(t)
	for _, tt := range v.Spaces {
		s := v.static(t, tt.Secret)
		key := s.SpaceKey(spaceID(t, tt.Space))
		if got := hex.EncodeToString(key.Seed()); got != tt.Seed {
			t.Errorf("%s: seed %s, want %s", tt.Space, got, tt.Seed)
		}
		if got := hex.EncodeToString(public(key)); got != tt.Public {
			t.Errorf("%s: public key %s, want %s", tt.Space, got, tt.Public)
		}
		if got := hostkeys.DIDKey(public(key)); got != tt.DID {
			t.Errorf("%s: %s, want %s", tt.Space, got, tt.DID)
		}
		if got := didKey("\xed", public(key)); got != tt.Legacy {
			t.Errorf("%s: %s, want %s", tt.Space, got, tt.Legacy)
		}
		for _, did := range []string{tt.DID, tt.Legacy, tt.DID + "#" + tt.DID[8:], tt.Legacy + "#x"} {
			got, err := hostkeys.ParseHostDID(did)
			if err != nil || !got.Equal(public(key)) {
				t.Errorf("ParseHostDID(%q) = %x, %v", did, got, err)
			}
		}
	}
	if got := hostkeys.DIDKey(public(v.static(t, v.Node.Secret).NodeKey())); got != v.Node.DID {
		t.Errorf("node: %s, want %s", got, v.Node.DID)
	}
}

// TestSpellingsOfASpace gives one key to a Space however its owner's address is spelled.
func TestSpellingsOfASpace(t *testing.T) {
	v := vectors(t)
	s := v.static(t, "S0")
	lower := strings.Replace(v.Spaces[0].Space, "0x7BD63AA37326a64d458559F44432103e3d6eEDE9", "0x7bd63aa37326a64d458559f44432103e3d6eede9", 1)
	if lower == v.Spaces[0].Space {
		t.Fatal("nothing replaced")
	}
	if got := hostkeys.DIDKey(public(s.SpaceKey(spaceID(t, lower)))); got != v.Spaces[0].DID {
		t.Errorf("%s, want %s", got, v.Spaces[0].DID)
	}
}

func TestDerive(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 33)
	s, err := hostkeys.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, context := range []string{
		hostkeys.ContextNode, hostkeys.ContextHookTickets, hostkeys.ContextListCursor, hostkeys.ContextSignedURLs, hostkeys.ContextWebhookSecrets, hostkeys.ContextNetworkSeal, "",
	} {
		if got, want := s.Derive(context), blake3.Sum256(append(bytes.Clone(secret), context...)); got != want {
			t.Errorf("%q: %x, want %x", context, got, want)
		}
	}
	if node := s.Derive(hostkeys.ContextNode); !bytes.Equal(s.NodeKey().Seed(), node[:]) {
		t.Error("node key is not of its context")
	}
}

func TestNewRefusesShortSecrets(t *testing.T) {
	for n := range 40 {
		s, err := hostkeys.New(make([]byte, n))
		if ok := err == nil; ok != (n >= hostkeys.MinSecretBytes) || ok != (s != nil) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if err != nil && (!errors.Is(err, tinycloud.ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("%d bytes", n))) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestCallersCannotChangeKeys writes to everything that goes in or comes out.
func TestCallersCannotChangeKeys(t *testing.T) {
	secret := make([]byte, 32)
	s, err := hostkeys.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	space := spaceID(t, "tinycloud:ens:example.eth:ns0")
	want := bytes.Clone(s.SpaceKey(space))
	clear(s.SpaceKey(space))
	for i := range secret {
		secret[i] = 1
	}
	if got := s.SpaceKey(space); !bytes.Equal(got, want) {
		t.Error("key changed")
	}
	other := spaceID(t, "tinycloud:ens:example.eth:ns1")
	fresh, err := hostkeys.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.SpaceKey(other), fresh.SpaceKey(other)) {
		t.Error("secret changed")
	}
}

// TestManySpaces goes past the cache from several goroutines.
func TestManySpaces(t *testing.T) {
	s, err := hostkeys.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	count := hostkeys.CacheSize + 100
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range count {
				space := spaceID(t, fmt.Sprintf("tinycloud:ens:example.eth:n%d", i))
				if want := s.Derive(space.String()); !bytes.Equal(s.SpaceKey(space).Seed(), want[:]) {
					t.Errorf("%s: wrong key", space)
				}
			}
		})
	}
	group.Wait()
	if got := hostkeys.Cached(s); got != hostkeys.CacheSize {
		t.Errorf("%d keys cached, want %d", got, hostkeys.CacheSize)
	}
}

func TestPrintsNothing(t *testing.T) {
	secret := []byte("hunter2-hunter2-hunter2-hunter2-")
	s, err := hostkeys.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	s.SpaceKey(spaceID(t, "tinycloud:ens:example.eth:ns0"))
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+verb+"\n", s, struct{ Keys *hostkeys.Static }{s})
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("start", "keys", s)
	if err := json.NewEncoder(&out).Encode(s); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(&out, s.String(), s.GoString())
	for _, leak := range []string{"hunter2", hex.EncodeToString(secret)[:12], "104 117", "example.eth"} {
		if strings.Contains(strings.ToLower(out.String()), leak) {
			t.Errorf("shows %q: %s", leak, out.String())
		}
	}
	if n := strings.Count(out.String(), "REDACTED"); n != 20 {
		t.Errorf("REDACTED %d times in %s", n, out.String())
	}
}

func didKey(code string, key []byte) string {
	return "did:key:z" + base58.Encode(append([]byte(code), key...))
}

func TestParseHostDIDRefuses(t *testing.T) {
	good := vectors(t).Spaces[0].DID
	key := make([]byte, 32)
	key[0] = 9
	for name, did := range map[string]string{
		"empty": "", "no key": "did:key:z", "fragment only": "#" + good, "other method": "did:web:example.com", "no z": strings.Replace(good, ":z", ":", 1),
		"other base": strings.Replace(good, ":z", ":u", 1), "path": good + "/x", "query": good + "?x", "blank": " " + good, "not base58": good[:len(good)-1] + "0",
		"one less": good[:len(good)-1], "one more": good + "1", "leading zero": strings.Replace(good, ":z", ":z1", 1), "capitals": "DID:KEY:" + good[8:],
		"secp256k1": didKey("\xe7\x01", append(key, 1)), "p256": didKey("\x80\x24", append(key, 1)), "x25519": didKey("\xec\x01", key),
		"long key": didKey("\xed\x01", append(key, 1)), "short key": didKey("\xed\x01", key[2:]), "long legacy": didKey("\xed", append(key, 1)),
		"very long": "did:key:z" + strings.Repeat("6", 400), "long fragment": good + "#" + strings.Repeat("x", 500),
	} {
		if got, err := hostkeys.ParseHostDID(did); !errors.Is(err, tinycloud.ErrInvalid) || got != nil {
			t.Errorf("%s: ParseHostDID(%q) = %x, %v", name, did, got, err)
		}
	}
	// A legacy key that begins like the rest of the code.
	key[0] = 1
	if got, err := hostkeys.ParseHostDID(didKey("\xed", key)); err != nil || !bytes.Equal(got, key) {
		t.Errorf("legacy key 01…: %x, %v", got, err)
	}
}

func FuzzParseHostDID(f *testing.F) {
	for _, v := range vectors(f).Spaces {
		if v.DID == "" || v.Legacy == "" {
			f.Fatal("empty seed")
		}
		f.Add(v.DID)
		f.Add(v.Legacy + "#" + v.Legacy[8:])
	}
	f.Fuzz(func(t *testing.T, did string) {
		key, err := hostkeys.ParseHostDID(did)
		if err != nil {
			if !errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("%q: class of %v", did, err)
			}
			return
		}
		principal, _, _ := strings.Cut(did, "#")
		if principal != hostkeys.DIDKey(key) && principal != didKey("\xed", key) {
			t.Errorf("%q names %x, which is spelled %s", did, key, hostkeys.DIDKey(key))
		}
	})
}

func BenchmarkSpaceKey(b *testing.B) {
	s, err := hostkeys.New(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	space := spaceID(b, "tinycloud:ens:example.eth:ns0")
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			s.SpaceKey(space)
		}
	})
	b.Run("derived", func(b *testing.B) {
		for b.Loop() {
			s.NodeKey()
		}
	})
}
