package capstore_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// TestPages compares what is read by pages with what is read entry by entry, of several logs, some of whose epochs stand in
// more than one; and of values that are too large to be in memory together.
func TestPages(t *testing.T) {
	o, stores := history(t, rand.New(rand.NewPCG(17, 1)), 120)
	for _, s := range stores[1:] {
		stores[0].pull(s, o.space)
	}
	s := stores[0]
	large := strings.Repeat("x", capstore.PageBytes/16)
	for i := range 20 {
		if err := o.put(s, fmt.Sprint("large/", i), fmt.Sprint(i, large)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		if err := o.put(s, fmt.Sprint("small/", i), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	const maxValue = 1 << 20
	values := 0
	for _, have := range [][]hostlog.Tip{nil, tipsAt(t, s, o, 10)} {
		var last *hostlog.Bundle
		err := s.Missing(t.Context(), o.space, have, maxValue, func(b hostlog.Bundle) error {
			one, err := capstore.BundleOf(t.Context(), s.Store, o.space, b.Entry, maxValue)
			if err != nil {
				return err
			}
			if !reflect.DeepEqual(b, one) {
				t.Fatalf("entry %d of %s: by page %+v, alone %+v", b.Entry.N, b.Entry.Host, b, one)
			}
			values += len(b.Values)
			last = &b
			return nil
		})
		if err != nil || last == nil {
			t.Fatal(last, err)
		}
	}
	if values < 2*25 {
		t.Fatal("values that came along:", values)
	}
}

// tipsAt is the entry of a number of each log that has one.
func tipsAt(t *testing.T, s *testStore, o *owner, n uint64) (tips []hostlog.Tip) {
	t.Helper()
	for _, b := range all(t, s, o.space) {
		if b.Entry.N == n {
			tips = append(tips, hostlog.Tip{Host: b.Entry.Host, N: n, Digest: b.Entry.Digest()})
		}
	}
	return slices.Clip(tips)
}
