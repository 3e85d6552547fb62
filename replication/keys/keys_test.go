package keys

import (
	"bytes"
	"errors"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// A refusal says its class and its text and nothing of errors that are no refusals.
func TestRefusals(t *testing.T) {
	for _, class := range classes {
		if err := refusal(tinycloud.Refuse(class, "why")).err(); !errors.Is(err, class) || err.Error() != "why" {
			t.Errorf("%v came as %v", class, err)
		}
	}
	if err := refusal(errors.New("/secret/path")).err(); !errors.Is(err, tinycloud.ErrUnavailable) || err.Error() != "try again later" {
		t.Errorf("an error came as %v", err)
	}
	if err := (&refused{Class: 1 << 40, Text: "newer"}).err(); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("an unknown class: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range []message{
		{Have: &have{IDs: []tinycloud.Hash{{1}, {2}}}},
		{Records: &page{Records: [][]byte{{1}, {2, 3}}, More: true}},
		{Done: &done{}},
		{Ask: &blob{Data: []byte("ask")}},
		{Decrypt: &decrypt{Header: "e", Network: "urn:n", Body: []byte("{}")}},
		{Refused: &refused{Class: 4, Text: "no"}},
	} {
		b, err := wire.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			if !errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("%v", err)
			}
			return
		}
		again, err := wire.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := decode(again); err != nil || n.fields() != 1 {
			t.Errorf("%x is read as %+v, and again as %+v: %v", b, m, n, err)
		}
		if len(again) == len(b) && !bytes.Equal(again, b) {
			t.Errorf("%x is encoded as %x", b, again)
		}
	})
}
