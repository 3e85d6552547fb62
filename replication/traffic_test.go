//go:build !race

package replication_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// What hosts say to compare and to ask is little beside what they give (BENCHMARKS.md).
func TestControlTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("traffic")
		nodes := cluster(t, f, o, 2)
		first, second := nodes[0], nodes[1]
		for i := range 100 {
			first.put(fmt.Sprint("key/", i), random(uint64(i), 1024))
		}
		same(t, nodes...)
		<-time.After(10 * time.Minute) // addresses were exchanged
		rounds, bytes, _ := f.talk(second.id)
		<-time.After(2 * time.Hour)
		n, now, _ := f.talk(second.id)
		n, now = n-rounds, now-bytes
		t.Logf("in sync: %d rounds, %d bytes each", n, now/max(n, 1))
		if n < 60 || now > 400*n {
			t.Errorf("%d bytes in %d rounds of two hours", now, n)
		}

		f.part(first.id, second.id, true)
		const tail = 2000
		for i := range tail {
			first.put(fmt.Sprint("tail/", i), random(uint64(i), 1024))
		}
		_, _, before := f.talk(second.id)
		f.part(first.id, second.id, false)
		same(t, nodes...)
		_, _, after := f.talk(second.id)
		t.Logf("offline tail: the host that lacked %d values of 1 KiB said %d bytes, %.3f %%", tail, after-before, float64(after-before)/tail/1024*100)
		if after-before > tail*1024/1000 {
			t.Errorf("%d bytes to ask for %d", after-before, tail*1024)
		}
	})
}
