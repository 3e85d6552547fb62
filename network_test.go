package tinycloud_test

import (
	"errors"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const lowerPKH = "did:pkh:eip155:1:0x7bd63aa37326a64d458559f44432103e3d6eede9"

func TestNetworkID(t *testing.T) {
	const checksummed = "did:pkh:eip155:1:0x7BD63AA37326a64d458559F44432103e3d6eEDE9"
	for text, want := range map[string][2]string{
		lowerPKH + ":default":        {checksummed, "default"},
		lowerPKH + ":A":              {checksummed, "A"},
		"did:key:z6Mk:a.b_c":         {"did:key:z6Mk", "a.b_c"},
		"did:web:example.com:user:x": {"did:web:example.com:user", "x"},
		"bare:x":                     {"bare", "x"},
	} {
		id, err := tinycloud.ParseNetworkID("urn:tinycloud:encryption:" + text)
		if err != nil || string(id.Owner()) != want[0] || id.Name() != want[1] || id.String() != "urn:tinycloud:encryption:"+want[0]+":"+want[1] {
			t.Errorf("%s: %+v, %v", text, id, err)
		}
	}
	for text, why := range map[string]string{
		"":                                                             "missing urn:tinycloud:encryption: prefix",
		"URN:tinycloud:encryption:a:b":                                 "missing urn:tinycloud:encryption: prefix",
		"urn:tinycloud:encryption:":                                    "missing owner DID/name separator",
		"urn:tinycloud:encryption:a":                                   "missing owner DID/name separator",
		"urn:tinycloud:encryption::a":                                  "empty owner DID",
		"urn:tinycloud:encryption:a:":                                  "empty network name",
		"urn:tinycloud:encryption:a:b/c":                               "network name may not contain ':' or '/'",
		"urn:tinycloud:encryption:did:key:x":                           "invalid owner principal: not a DID",
		"urn:tinycloud:encryption:did:pkh:eip155:0:0x7:x":              "invalid owner principal: not a DID",
		"urn:tinycloud:encryption:did:key:z 1:x":                       "invalid owner principal: not a DID",
		"urn:tinycloud:encryption:" + strings.Repeat("a", 1024) + ":x": "network id of 1025 bytes, at most 1024",
	} {
		var r *tinycloud.Refusal
		if id, err := tinycloud.ParseNetworkID(text); !errors.As(err, &r) || !errors.Is(r, tinycloud.ErrInvalid) || r.Text != why {
			t.Errorf("%s: %+v, %v", text, id, err)
		}
	}
	for name, ok := range map[string]bool{
		"default": true, "0": true, "a-b-": true, strings.Repeat("a", tinycloud.MaxNetworkName): true,
		"": false, "-a": false, "A": false, "a_b": false, "a.b": false, "a%61": false, "é": false, strings.Repeat("a", tinycloud.MaxNetworkName+1): false,
	} {
		id, err := tinycloud.NewNetworkID(lowerPKH, name)
		if (err == nil) != ok || ok && id.String() != "urn:tinycloud:encryption:"+checksummed+":"+name {
			t.Errorf("%s: %s, %v", name, id, err)
		}
	}
	if id, err := tinycloud.NewNetworkID("bare", "x"); err == nil {
		t.Error(id)
	}
}

// FuzzNetworkID: an id that is read prints as one that is read the same, and a resource says the same of it.
func FuzzNetworkID(f *testing.F) {
	f.Add("urn:tinycloud:encryption:" + lowerPKH + ":default")
	f.Add("urn:tinycloud:encryption:bare:x")
	f.Add("urn:tinycloud:encryption:did:key:z6Mk:a%2fb")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := tinycloud.ParseNetworkID(text)
		if err != nil {
			return
		}
		again, err := tinycloud.ParseNetworkID(id.String())
		if err != nil || again != id {
			t.Errorf("%q: %+v, then %+v, %v", text, id, again, err)
		}
		r, err := tinycloud.ParseResource(text)
		if err != nil {
			return
		}
		if of, ok := r.Network(); ok && of != id {
			t.Errorf("%q: resource of %+v, not %+v", text, of, id)
		}
	})
}
