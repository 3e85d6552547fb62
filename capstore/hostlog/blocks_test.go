package hostlog_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// What a bundle is taken apart into makes the bundle again, and no block of it can be left out.
func TestBlocksMakeTheBundle(t *testing.T) {
	plain, key := signedBundle(t)
	imports := hostlog.Bundle{Entry: plain.Entry, Imported: []hostlog.Imported{{At: 1, Epoch: plain.Epoch, Events: plain.Events}}}
	imports.Entry.Epoch, imports.Entry.Import = tinycloud.Hash{}, hostlog.ImportHash(imports.Imported)
	imports.Sig = hostlog.Sign(key, imports.Entry.Digest())
	for name, want := range map[string]hostlog.Bundle{"epoch": plain, "import": imports} {
		t.Run(name, func(t *testing.T) {
			blocks := map[tinycloud.Hash][]byte{}
			if err := want.Blocks(func(_ uint64, b []byte) error {
				blocks[tinycloud.Sum(b)] = b
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			entry := want.Entry.Encode()
			delete(blocks, want.Entry.Digest())
			get := func(without tinycloud.Hash) func(tinycloud.Hash) ([]byte, bool) {
				return func(h tinycloud.Hash) ([]byte, bool) {
					b, ok := blocks[h]
					return b, ok && h != without
				}
			}
			got, err := hostlog.Assemble(entry, want.Sig, get(tinycloud.Hash{}))
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(tinycloud.SpaceID{}), cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("%v, %s", err, diff)
			}
			if err := hostlog.CheckAll(want.Entry.Space, []hostlog.Bundle{got}).Bad; err != nil {
				t.Error(err)
			}
			for h := range blocks {
				if _, err := hostlog.Assemble(entry, want.Sig, get(h)); !errors.Is(err, tinycloud.ErrInvalid) {
					t.Errorf("without %s: %v", h, err)
				}
			}
		})
	}
}
