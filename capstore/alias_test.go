package capstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

func aliases(t *testing.T, s *testStore, want ...capstore.Alias) {
	t.Helper()
	if got, err := s.Aliases(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

func TestAliases(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		path := newDatabase(t)
		s := open(t, "one", c, path)
		set := func(name, id string) {
			t.Helper()
			if err := s.SetAlias(t.Context(), capstore.Alias{Name: name, ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		aliases(t, s)
		set("office", "a")
		set("Office", "b") // another name
		set("office", "a")
		aliases(t, s, capstore.Alias{Name: "Office", ID: "b"}, capstore.Alias{Name: "office", ID: "a"})
		set("home", "a")   // in place of its name
		set("Office", "a") // and of what had that one
		aliases(t, s, capstore.Alias{Name: "Office", ID: "a"})
		set("b-2.x_", "b")
		if kind(t) != onMemory { // it has a life after this process
			s.stop()
			s = open(t, "one", c, path)
		}
		aliases(t, s, capstore.Alias{Name: "Office", ID: "a"}, capstore.Alias{Name: "b-2.x_", ID: "b"})
		if err := s.RemoveAlias(t.Context(), "office"); !errors.Is(err, tinycloud.ErrNotFound) {
			t.Error(err)
		}
		if err := s.RemoveAlias(t.Context(), "Office"); err != nil {
			t.Error(err)
		}
		aliases(t, s, capstore.Alias{Name: "b-2.x_", ID: "b"})
	})
}

func TestAliasBounds(t *testing.T) {
	s := openNew(t, "one", newClock())
	for _, x := range []struct{ name, id, field string }{
		{"", "a", "name"},
		{strings.Repeat("n", 33), "a", "name"},
		{"a b", "a", "name"},
		{"did:key:z", "a", "name"},
		{"a\n", "a", "name"},
		{"é", "a", "name"},
		{"n", "", "id"},
		{"n", strings.Repeat("a", 129), "id"},
	} {
		if err := s.SetAlias(t.Context(), capstore.Alias{Name: x.name, ID: x.id}); !errors.Is(err, tinycloud.ErrInvalid) || !strings.HasPrefix(err.Error(), x.field+" ") {
			t.Errorf("%q of %q: %v", x.name, x.id, err)
		}
	}
	var wg sync.WaitGroup // many at once are one transaction
	for i := range capstore.MaxAliases {
		wg.Go(func() {
			if err := s.SetAlias(t.Context(), capstore.Alias{Name: fmt.Sprint("n", i), ID: fmt.Sprint("peer", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.SetAlias(t.Context(), capstore.Alias{Name: "more", ID: "more"}); !errors.Is(err, tinycloud.ErrBusy) {
		t.Error(err)
	}
	if err := s.SetAlias(t.Context(), capstore.Alias{Name: "n7", ID: "more"}); err != nil { // a name that is there moves
		t.Error(err)
	}
	if got, err := s.Aliases(t.Context()); err != nil || len(got) != capstore.MaxAliases {
		t.Error(len(got), err)
	}
}
