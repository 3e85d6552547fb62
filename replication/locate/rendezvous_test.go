package locate_test

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
)

func TestRendezvousNames(t *testing.T) {
	const week = 7 * 24 * time.Hour
	secret := tinycloud.Sum([]byte("secret"))
	monday := time.Unix(0, 0).Add(3000 * week)
	at := func(d time.Duration, secret tinycloud.Hash, means string) [][32]byte {
		return locate.RendezvousNames(secret, means, monday.Add(d))
	}
	middle := at(week/2, secret, "dht")
	if len(middle) != 1 {
		t.Fatalf("%d names in the middle of a week", len(middle))
	}
	// Clocks that differ by hours have a name in common.
	before, after := at(-time.Hour, secret, "dht"), at(time.Hour, secret, "dht")
	if len(before) != 2 || len(after) != 2 || before[1] != after[0] || before[0] != after[1] {
		t.Errorf("before %x, after %x the change", before, after)
	}
	if after[0] != middle[0] || at(0, secret, "dht")[0] != middle[0] {
		t.Error("a week has two names")
	}
	if at(week+week/2, secret, "dht")[0] == middle[0] {
		t.Error("the name does not change")
	}
	if at(week/2, secret, "mdns")[0] == middle[0] || at(week/2, tinycloud.Sum(nil), "dht")[0] == middle[0] {
		t.Error("a name for two things")
	}
}
