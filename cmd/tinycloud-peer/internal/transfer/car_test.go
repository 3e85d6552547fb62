package transfer_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

func export(t testing.TB, cfg config.Config, space tinycloud.SpaceID) []byte {
	t.Helper()
	var b bytes.Buffer
	with(t, cfg, func(d *node.Data) {
		x, err := transfer.Export(t.Context(), d, space, &b, io.Discard)
		must(t, err)
		if x.Skipped != 0 || x.Bytes != int64(b.Len()) || x.Values < 5 {
			t.Errorf("%+v", x)
		}
	})
	return b.Bytes()
}

// TestExport moves a Space by a file, in one go, in pieces, and again.
func TestExport(t *testing.T) {
	cfg, o := filled(t)
	file := export(t, cfg, o.space)
	if again := export(t, cfg, o.space); !bytes.Equal(again, file) {
		t.Error("two exports differ")
	}
	state := ""
	with(t, cfg, func(d *node.Data) {
		st, err := d.Store.Status(t.Context(), o.space)
		must(t, err)
		state = st.StateHash
	})
	to := settings(t, "")
	with(t, to, func(d *node.Data) {
		for _, n := range []int{0, 1, 100, 5000, len(file) / 2, len(file) - 100, len(file) - 1} {
			if _, err := transfer.Import(t.Context(), d, bytes.NewReader(file[:n]), io.Discard); !errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("of %d bytes: %v", n, err)
			}
		}
		x, err := transfer.Import(t.Context(), d, bytes.NewReader(file), io.Discard)
		if err != nil || x.Hosted || d.Store.Hosted(o.space) || x.New != 0 {
			t.Fatalf("%+v, %v", x, err)
		}
		delegate(t, d, o)
		checkOld(t, d, o.space, o.winner())
		x, err = transfer.Import(t.Context(), d, bytes.NewReader(file), io.Discard)
		if err != nil || !x.Hosted || x.New != 0 || x.Values != 0 || x.Void != 0 {
			t.Errorf("into a hosted space: %+v, %v", x, err)
		}
		st, err := d.Store.Status(t.Context(), o.space)
		if err != nil || st.StateHash != state || st.Wants != 0 {
			t.Errorf("%+v, %v", st, err)
		}
	})
	if found := verify(t, to); len(found) > 0 {
		t.Errorf("after the import: %+v", found)
	}
}

// TestImportRefuses damages every part of a file: nothing wrong gets in, nothing right is lost.
func TestImportRefuses(t *testing.T) {
	cfg, o := filled(t)
	file := export(t, cfg, o.space)
	to := settings(t, "")
	with(t, to, func(d *node.Data) {
		for n := 3; n < len(file); n += len(file)/61 + 1 {
			b := bytes.Clone(file)
			b[n] ^= 0x40
			if _, err := transfer.Import(t.Context(), d, bytes.NewReader(b), io.Discard); err == nil {
				t.Errorf("byte %d of %d changed: imported", n, len(b))
			}
		}
	})
	if found := verify(t, to); len(found) > 0 {
		t.Errorf("after damaged imports: %+v", found)
	}
}

func FuzzImport(f *testing.F) {
	cfg, o := filled(f)
	file := export(f, cfg, o.space)
	for _, n := range []int{10, 200, 4000} {
		f.Add(file[:n])
	}
	d := openData(f, settings(f, ""))
	f.Cleanup(func() { must(f, d.Close()) })
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := transfer.Import(t.Context(), d, bytes.NewReader(b), io.Discard); err == nil && len(b) < 200 {
			t.Errorf("imported %x", b)
		}
	})
}
