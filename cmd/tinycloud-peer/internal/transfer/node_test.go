package transfer

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/ipld/go-ipld-prime/fluent/qp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// TestRecords holds the bytes of files that earlier releases wrote, and reads them.
func TestRecords(t *testing.T) {
	c := tinycloud.Sum(nil).CID(tinycloud.CBORCodec)
	value := tinycloud.Sum(nil).CID(tinycloud.RawCodec)
	link := "d82a58250001711e20af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
	raw := strings.Replace(link, "71", "55", 1)
	sig := hostlog.Signature{1, 2}
	const name = "tinycloud:pkh:eip155:1:0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045:default"
	space, err := tinycloud.ParseSpaceID(name)
	if err != nil {
		t.Fatal(err)
	}
	root := "a2657370616365" + "78" + hex.EncodeToString([]byte{byte(len(name))}) + hex.EncodeToString([]byte(name)) + "6974696e79636c6f756401"
	for _, tt := range []struct {
		name string
		make func() ([]byte, error)
		want string
	}{
		{"header", func() ([]byte, error) { return encodeHeader(c) }, "a265726f6f747381" + link + "6776657273696f6e01"},
		{"entry", func() ([]byte, error) { return encodeRecord(c, qp.Bytes(sig[:])) }, "82" + link + "58400102" + strings.Repeat("00", 62)},
		{"value", func() ([]byte, error) { return encodeRecord(value, qp.Int(70000)) }, "82" + raw + "1a00011170"},
		{"root", func() ([]byte, error) { return encodeRoot(space) }, root},
	} {
		if b, err := tt.make(); err != nil || hex.EncodeToString(b) != tt.want {
			t.Errorf("%s: %x, %v; want %s", tt.name, b, err, tt.want)
		}
	}
	header, _ := hex.DecodeString("a265726f6f747381" + link + "6776657273696f6e01")
	if root, err := decodeHeader(header); err != nil || !root.Equals(c) {
		t.Errorf("header: %s, %v", root, err)
	}
	b, _ := hex.DecodeString(root)
	if id, err := decodeRoot(b); err != nil || id != space {
		t.Errorf("root: %s, %v", id, err)
	}
	entry, _ := encodeRecord(c, qp.Bytes(sig[:]))
	if r, ok, err := decodeRecord(entry); err != nil || !ok || r.of != tinycloud.Sum(nil) || r.sig == nil || *r.sig != sig {
		t.Errorf("entry: %+v, %v, %v", r, ok, err)
	}
	size, _ := encodeRecord(value, qp.Int(70000))
	if r, ok, err := decodeRecord(size); err != nil || !ok || r.of != tinycloud.Sum(nil) || r.sig != nil || r.size != 70000 {
		t.Errorf("value: %+v, %v, %v", r, ok, err)
	}
}

func TestRecordsRefused(t *testing.T) {
	c := tinycloud.Sum(nil).CID(tinycloud.CBORCodec)
	for name, with := range map[string]qp.Assemble{
		"a short signature": qp.Bytes(make([]byte, 63)), "a long one": qp.Bytes(make([]byte, 65)),
		"a negative size": qp.Int(-1), "a size beyond bounds": qp.Int(maxValue + 1), "a text": qp.String("x"),
	} {
		b, err := encodeRecord(c, with)
		if err != nil {
			t.Fatal(err)
		}
		if r, ok, err := decodeRecord(b); err == nil || ok {
			t.Errorf("%s is accepted: %+v", name, r)
		}
	}
	for name, text := range map[string]string{
		"an epoch": "a267706172656e747380666576656e747380", "a list of two lists": "828080", "two numbers": "820102", "cut short": "82d82a5825",
	} {
		b, _ := hex.DecodeString(text)
		if r, ok, err := decodeRecord(b); err != nil || ok {
			t.Errorf("%s is taken for a record: %+v, %v", name, r, err)
		}
	}
	for name, text := range map[string]string{
		"no roots": "a265726f6f7473806776657273696f6e01", "roots that are no list": "a265726f6f7473016776657273696f6e01",
		"a root that is no link": "a265726f6f747381016776657273696f6e01", "no map": "80", "nothing": "",
	} {
		b, _ := hex.DecodeString(text)
		if c, err := decodeHeader(b); err == nil {
			t.Errorf("header with %s is accepted: %s", name, c)
		}
	}
}
