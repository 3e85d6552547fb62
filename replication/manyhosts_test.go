//go:build !race

package replication_test

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What a Space costs grows with the pairs of its hosts that are connected, and not with its writes times its hosts:
// who holds an epoch signs no entry for it. SCALE_HOSTS=2,8,16,32 tells the figures of docs/scale.md.
func TestManyHosts(t *testing.T) {
	for text := range strings.SplitSeq(cmp.Or(os.Getenv("SCALE_HOSTS"), "4"), ",") {
		hosts, err := strconv.Atoi(text)
		if err != nil || hosts < 2 {
			t.Fatalf("SCALE_HOSTS: %q", text)
		}
		t.Run(text, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { manyHosts(t, hosts) })
		})
	}
}

func manyHosts(t *testing.T, hosts int) {
	const puts = 50
	f := newFabric(t)
	nodes := cluster(t, f, newOwner("many hosts"), hosts)
	<-time.After(10 * time.Minute) // addresses were exchanged
	began := nodes[0].status().Epochs
	messages, length := f.published()
	for i := range puts {
		nodes[0].put(fmt.Sprint("key/", i), random(uint64(i), 1024))
		synctest.Wait()
	}
	same(t, nodes...)
	now, nowLength := f.published()
	t.Logf("%d hosts: a put of 1 KiB is %d bytes of gossip in %.2f messages, without copies", hosts, (nowLength-length)/puts, float64(now-messages)/puts)
	if epochs := nodes[0].status().Epochs - began; epochs != puts || now-messages > puts+hosts {
		t.Errorf("%d puts made %d epochs and %d messages", puts, epochs, now-messages)
	}
	var signed uint64
	for _, x := range nodes {
		tips, err := x.store.Tips(t.Context(), x.o.space)
		if err != nil {
			t.Fatal(err)
		}
		signed = 0
		for _, tip := range tips {
			signed += tip.N + 1
		}
	}
	epochs := nodes[0].status().Epochs
	t.Logf("%d hosts: %d entries of %d epochs, %d bytes of database at a host", hosts, signed, epochs, nodes[hosts-1].disk())
	if signed > uint64(epochs) {
		t.Errorf("%d entries of %d epochs", signed, epochs)
	}

	<-time.After(10 * time.Minute)
	rounds, bytes, _ := f.talk(nodes[0].id)
	const minutes = 30
	<-time.After(minutes * time.Minute)
	later, laterBytes, _ := f.talk(nodes[0].id)
	rounds, bytes = later-rounds, laterBytes-bytes
	t.Logf("%d hosts in sync: %d bytes a round, %.1f rounds and %.0f bytes a minute of each host", hosts, bytes/max(rounds, 1),
		float64(rounds)/minutes/float64(hosts), float64(bytes)/minutes/float64(hosts))
	if pairs := hosts * (hosts - 1) / 2; bytes > 150*rounds || rounds > 2*minutes*pairs {
		t.Errorf("%d bytes in %d rounds of %d pairs in half an hour", bytes, rounds, pairs)
	}
}

// disk is the length of the node's database.
func (n *node) disk() int64 {
	n.t.Helper()
	var length int64
	for _, name := range []string{"caps.db", "caps.db-wal"} {
		if info, err := os.Stat(n.dir + "/" + name); err == nil {
			length += info.Size()
		}
	}
	return length
}
