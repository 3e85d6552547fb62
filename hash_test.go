package tinycloud_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

func TestHash(t *testing.T) {
	h := tinycloud.Sum([]byte("hello tinycloud"))
	if h.String() != "9a6c5a6e655bf64c1d499faae99bb3f2705bb4e5c97ae4f78015fd68814a8df3" || h.IsZero() || !(tinycloud.Hash{}).IsZero() {
		t.Errorf("hash %s", h)
	}
	if got := tinycloud.Sum(nil).String(); got != "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" {
		t.Errorf("hash of nothing %s", got)
	}
	if !strings.HasPrefix(h.EventID(), "bafkr4i") || !strings.HasPrefix(h.EpochID(), "bafyr4i") {
		t.Errorf("ids %s %s", h.EventID(), h.EpochID())
	}
	for _, text := range []string{h.EventID(), h.EpochID(), strings.ToUpper(h.EventID())} {
		if got, err := tinycloud.ParseCID(text); err != nil || got != h {
			t.Errorf("ParseCID(%s) = %s, %v", text, got, err)
		}
	}
	if got := tinycloud.HashOf(h.CID(tinycloud.CBORCodec)); got != h {
		t.Errorf("HashOf: %s", got)
	}
}

// TestParseCID has one id in the two spellings that tokens use (protocol appendix A.3).
func TestParseCID(t *testing.T) {
	a, err1 := tinycloud.ParseCID("bafkr4if3e3mejw7mfvjblw2esi3snmqxnun74hetb7pnxuch3q2hz42sxm")
	b, err2 := tinycloud.ParseCID("zb38SJZrMRtxPNpVsfCm54KHDwkt4zFoNrw1vEXEDy9XEtD3G")
	if err := errors.Join(err1, err2); err != nil || a != b || a.String() != "bb26d844dbec2d5215db449237"+"26b2176d1bfe1c930fdedbd047dc347cf352bb" {
		t.Errorf("%s and %s, %v", a, b, err)
	}
	foreign, err := tinycloud.ParseCID("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG")
	if err != nil || foreign == a || foreign.IsZero() {
		t.Errorf("a foreign multihash: %s, %v", foreign, err)
	}
	for _, text := range []string{"", "b", "x", "bafkr4i", a.EventID() + "a", strings.Repeat("b", 300), a.String()} {
		if h, err := tinycloud.ParseCID(text); !errors.Is(err, tinycloud.ErrInvalid) || !h.IsZero() {
			t.Errorf("ParseCID(%.20q) = %s, %v", text, h, err)
		}
	}
}

func FuzzParseCID(f *testing.F) {
	f.Add("bafkr4if3e3mejw7mfvjblw2esi3snmqxnun74hetb7pnxuch3q2hz42sxm")
	f.Add("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := tinycloud.ParseCID(text)
		if err != nil {
			return
		}
		if back, err := tinycloud.ParseCID(h.EventID()); err != nil || back != h {
			t.Errorf("%q: %s comes back as %s, %v", text, h, back, err)
		}
		if c, err := cid.Decode(text); err != nil || tinycloud.HashOf(c) != h {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func TestRefusal(t *testing.T) {
	err := tinycloud.Refuse(tinycloud.ErrUnauthorized, "Unauthorized Action: %s / %s", "r", "a/b")
	var refusal *tinycloud.Refusal
	if err.Error() != "Unauthorized Action: r / a/b" || !errors.Is(err, tinycloud.ErrUnauthorized) || errors.Is(err, tinycloud.ErrForged) ||
		!errors.As(err, &refusal) || refusal.Class != tinycloud.ErrUnauthorized {
		t.Errorf("refusal %v", err)
	}
}
