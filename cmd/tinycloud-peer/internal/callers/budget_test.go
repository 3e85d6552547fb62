package callers_test

import (
	"fmt"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := callers.NewBudget(6, 3)
		times := func(remote string, want int) {
			t.Helper()
			for i := range want + 1 {
				if left := b.Left(remote); left != (i < want) {
					t.Errorf("%s after %d times: left %v", remote, i, left)
				}
				if b.Allow(remote) != (i < want) {
					t.Errorf("%s after %d times: not as was said", remote, i)
				}
			}
		}
		times("203.0.113.1:80", 3)
		times("203.0.113.1:81", 0) // by address
		times("203.0.113.2:80", 3)
		times("[2001:db8::1]:80", 3)
		times("[2001:db8::2]:80", 0) // the same /64
		time.Sleep(10*time.Second - 1)
		times("203.0.113.1", 0)
		time.Sleep(time.Nanosecond)
		times("203.0.113.1", 1)
		time.Sleep(time.Hour)
		times("203.0.113.1", 3) // no more than at first
	})
}

// TestBudgetEdges has what operators may configure.
func TestBudgetEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			perMinute, burst uint32
			first, later     int // of ten times at once, and of ten more a day later
		}{{0, 0, 0, 0}, {0, 3, 3, 0}, {60, 0, 0, 0}, {1, 5, 5, 5}, {math.MaxUint32, 4, 4, 4}, {1, math.MaxUint32, 10, 10}, {math.MaxUint32, math.MaxUint32, 10, 10}} {
			b := callers.NewBudget(c.perMinute, c.burst)
			ten := func() (n int) {
				for range 10 {
					if b.Allow("203.0.113.1") {
						n++
					}
				}
				return n
			}
			first := ten()
			time.Sleep(24 * time.Hour)
			if later := ten(); first != c.first || later != c.later {
				t.Errorf("%d a minute, %d at once: %d, and %d a day later", c.perMinute, c.burst, first, later)
			}
		}
	})
}

// TestBudgetOfMany has somebody use as many addresses as he likes: he doesn't have a client forgotten who used up what he
// may do, and what is remembered has a bound.
func TestBudgetOfMany(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b := callers.NewBudget(1, 10)
	for range 10 {
		b.Allow("203.0.113.1")
	}
	for i := range 100_000 {
		if remote := fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff); !b.Allow(remote) {
			t.Fatalf("%s was there before", remote)
		}
	}
	if b.Left("203.0.113.1") {
		t.Error("who used up what he may do was forgotten")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("%d bytes are held", grown)
	}
	runtime.KeepAlive(b)
}
