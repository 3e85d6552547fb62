package recent_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/recent"
)

func TestMemory(t *testing.T) {
	m, found := recent.New[string](), 0
	find := func(text string) (string, error) {
		found++
		return "of " + text, nil
	}
	for range 3 {
		if v, err := m.Of("a", find); v != "of a" || err != nil {
			t.Fatal(v, err)
		}
	}
	if found != 1 {
		t.Errorf("found %d times", found)
	}
	failed := errors.New("no value")
	for range 2 {
		if _, err := m.Of("b", func(string) (string, error) { found++; return "", failed }); !errors.Is(err, failed) {
			t.Error(err)
		}
	}
	if found != 3 {
		t.Errorf("an error is remembered: found %d times", found)
	}
	long := strings.Repeat("x", 1000)
	for range 2 {
		if v, err := m.Of(long, find); v != "of "+long || err != nil {
			t.Error(v, err)
		}
	}
	if found != 5 {
		t.Errorf("a long text is remembered: found %d times", found)
	}
}

// TestManyTexts has more texts than there is room for, at the same time.
func TestManyTexts(t *testing.T) {
	m := recent.New[string]()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 4000 {
				text := fmt.Sprint(i % 1000)
				v, err := m.Of(text, func(text string) (string, error) { return "of " + text, nil })
				if v != "of "+text || err != nil {
					t.Errorf("%s: %q, %v", text, v, err)
				}
			}
		})
	}
	all.Wait()
}
