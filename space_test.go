package tinycloud_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const (
	account = "0x7BD63AA37326a64d458559F44432103e3d6eEDE9"
	owned   = "tinycloud:pkh:eip155:1:" + account + ":default"
)

// spaces are those of docs/protocol.md, "Space id": input, canonical text, owner and name; refused where the text is
// empty.
var spaces = []struct{ in, text, owner, name string }{
	{owned, owned, "did:pkh:eip155:1:" + account, "default"},
	{"tinycloud:ens:example.eth:ns0", "tinycloud:ens:example.eth:ns0", "did:ens:example.eth", "ns0"},
	{"tinycloud:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK:photos", "tinycloud:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK:photos", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", "photos"},
	{"tinycloud:ens:example.eth:a:b", "tinycloud:ens:example.eth:a:b", "did:ens:example.eth:a", "b"},
	{"tinycloud:ens:example.eth:n%20s", "tinycloud:ens:example.eth:n%20s", "did:ens:example.eth", "n%20s"},
	{"tinycloud:ens:example.eth:n%2Fs", "tinycloud:ens:example.eth:n%2Fs", "did:ens:example.eth", "n%2Fs"},
	{"tinycloud:ens:example.eth:a@b~c!", "tinycloud:ens:example.eth:a@b~c!", "did:ens:example.eth", "a@b~c!"},
	{"tinycloud:pkh:solana:x:0xabc:default", "tinycloud:pkh:solana:x:0xabc:default", "did:pkh:solana:x:0xabc", "default"},
	{"tinycloud:pkh:eip155:1:" + strings.ToLower(account) + ":default", owned, "did:pkh:eip155:1:" + account, "default"},
	{"tinycloud:pkh:eip155:1:0x" + strings.ToUpper(account[2:]) + ":default", owned, "did:pkh:eip155:1:" + account, "default"},
	{"tinycloud:pkh:eip155:0001:" + account + ":default", owned, "did:pkh:eip155:1:" + account, "default"},

	{in: ""},
	{in: "tinycloud:"},
	{in: "tinycloud:default"},
	{in: "tinycloud:ens:"},
	{in: "tinycloud:ens:example.eth:"},
	{in: "tinycloud::example.eth:ns0"},
	{in: "tinycloud:ens::ns0"},
	{in: "tinycloud:ENS:example.eth:ns0"},
	{in: "tinycloud:ens:exa~mple.eth:ns0"},
	{in: "tinycloud:ens:example.eth:."},
	{in: "tinycloud:ens:example.eth:.."},
	{in: "tinycloud://ens:example.eth:ns0"},
	{in: "kepler:ens:example.eth:ns0"},
	{in: "TINYCLOUD:ens:example.eth:ns0"},
	{in: "tinycloud:ens:example.eth:ns0/kv"},
	{in: "tinycloud:ens:example.eth:ns0/"},
	{in: "tinycloud:ens:example.eth:ns0?x=1"},
	{in: "tinycloud:ens:example.eth:ns0?"},
	{in: "tinycloud:ens:example.eth:ns0#f"},
	{in: "tinycloud:ens:example.eth:ns0#"},
	{in: "tinycloud:ens:example.eth:n s"},
	{in: "tinycloud:ens:example.eth:%7Euser"},
	{in: "tinycloud:ens:example.eth:%2fuser"},
	{in: "tinycloud:ens:example.eth:%2"},
	{in: "tinycloud:ens:example.eth:ünï"},
	{in: "tinycloud:ens:example.eth:ns\n0"},
	{in: "tinycloud:ens:example.eth:" + strings.Repeat("n", 256)},
	{in: "tinycloud:ens:" + strings.Repeat("e", 256) + ":n"},
	{in: "tinycloud:pkh:eip155:0:" + account + ":default"},
	{in: "tinycloud:pkh:eip155:x:" + account + ":default"},
	{in: "tinycloud:pkh:eip155:18446744073709551616:" + account + ":default"},
	{in: "tinycloud:pkh:eip155:1:" + account[:41] + ":default"},
	{in: "tinycloud:pkh:eip155:1:" + account[2:] + ":default"},
	{in: "tinycloud:pkh:eip155:1:0x" + strings.Repeat("g", 40) + ":default"},
	{in: "tinycloud:pkh:eip155:1:default"},
}

func TestParseSpaceID(t *testing.T) {
	for _, tt := range spaces {
		id, err := tinycloud.ParseSpaceID(tt.in)
		if tt.text == "" {
			if !errors.Is(err, tinycloud.ErrInvalid) || !id.IsZero() {
				t.Errorf("ParseSpaceID(%q) = %v, %v; want an error", tt.in, id, err)
			}
			continue
		}
		if err != nil || id.String() != tt.text || string(id.Owner()) != tt.owner || id.Name() != tt.name || id.IsZero() {
			t.Errorf("ParseSpaceID(%q) = %v (owner %s, name %s), %v", tt.in, id, id.Owner(), id.Name(), err)
		}
	}
}

func TestSpaceIDIsOneValue(t *testing.T) {
	a, err1 := tinycloud.ParseSpaceID(owned)
	b, err2 := tinycloud.ParseSpaceID(strings.ToLower(owned))
	if err1 != nil || err2 != nil || a != b {
		t.Errorf("two spellings of one Space differ: %v %v", a, b)
	}
	out, err := json.Marshal(map[tinycloud.SpaceID]tinycloud.SpaceID{a: b})
	if err != nil {
		t.Fatal(err)
	}
	var back map[tinycloud.SpaceID]tinycloud.SpaceID
	if err := json.Unmarshal(out, &back); err != nil || back[a] != a || len(back) != 1 {
		t.Errorf("back from %s: %v, %v", out, back, err)
	}
	if err := json.Unmarshal([]byte(`{"x":"y"}`), &back); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("unmarshal of no id: %v", err)
	}
}

func FuzzParseSpaceID(f *testing.F) {
	for _, tt := range spaces {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := tinycloud.ParseSpaceID(text)
		if err != nil {
			if !id.IsZero() || !errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("%q: %v beside %v", text, id, err)
			}
			return
		}
		back, err := tinycloud.ParseSpaceID(id.String())
		if err != nil || back != id || back.String() != id.String() {
			t.Errorf("%q prints as %q, which is %v, %v", text, id, back, err)
		}
		if strings.ContainsAny(id.Name(), "/:") || id.Name() == "." || id.Name() == ".." {
			t.Errorf("%q: name %q", text, id.Name())
		}
		if owner, err := tinycloud.ParsePrincipal(string(id.Owner())); err != nil || owner != id.Owner() {
			t.Errorf("%q: owner %q is no canonical DID: %v", text, id.Owner(), err)
		}
	})
}

// What was read before changes nothing of what a text means.
func TestSpaceIDAgain(t *testing.T) {
	for range 2 {
		a, errA := tinycloud.ParseSpaceID("tinycloud:pkh:eip155:1:0x26ffcda3a2d73c7a6cb9b5e0c1f4a0ba4d8fb9c4:default")
		b, errB := tinycloud.ParseSpaceID("tinycloud:pkh:eip155:01:0x26FFCDA3A2D73C7A6CB9B5E0C1F4A0BA4D8FB9C4:default")
		c, errC := tinycloud.ParseSpaceID("tinycloud:pkh:eip155:1:0x26ffcda3a2d73c7a6cb9b5e0c1f4a0ba4d8fb9c4:other")
		if errA != nil || errB != nil || errC != nil || a != b || a == c || c.Name() != "other" {
			t.Fatalf("%s, %s, %s: %v, %v, %v", a, b, c, errA, errB, errC)
		}
		if _, err := tinycloud.ParseSpaceID("tinycloud:pkh:eip155:0:0x26ffcda3a2d73c7a6cb9b5e0c1f4a0ba4d8fb9c4:default"); err == nil {
			t.Fatal("a chain of number 0 is taken")
		}
	}
}
