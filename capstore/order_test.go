package capstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// Of two writes that don't know of each other the later one stands, by whatever the clocks differ; of two of the same
// time the one that builds on more, or else the one with the greater epoch.
func TestLastWriteWins(t *testing.T) {
	onRaces(t, onlyMemory, func(r *race) {
		const when = 700 * time.Second
		offs := []time.Duration{-10 * time.Minute, -time.Minute, -time.Millisecond, 0, time.Millisecond, time.Minute, 10 * time.Minute}
		for i, off := range offs { // both logs as long as each other
			key := fmt.Sprint("k", i)
			r.writes(r.one, when, key, "one "+key)
			r.writes(r.two, when+off, key, "two "+key)
		}
		for i, off := range offs {
			key := fmt.Sprint("k", i)
			one, two := r.said["one "+key].Entry.Epoch, r.said["two "+key].Entry.Epoch
			if off > 0 || off == 0 && bytes.Compare(two[:], one[:]) > 0 {
				r.won(off.String(), key, "two "+key)
			} else {
				r.won(off.String(), key, "one "+key)
			}
		}
		// The same time, and more beneath it: one is some epochs behind by now.
		const later = when + 11*time.Minute
		for i := range 8 { // whatever their digests are
			key := fmt.Sprint("long", i)
			r.writes(r.two, later, key+"/before", key)
			r.writes(r.two, later, key, "two "+key)
			r.writes(r.one, later, key, "one "+key)
			r.won("built on more", key, "two "+key)
		}
		// A time before what it builds on is not its time: who builds on a later write is later.
		r.writes(r.one, later+10*time.Second, "other", "x")
		r.writes(r.one, later-50*time.Second, "behind", "one")
		r.writes(r.two, later+5*time.Second, "behind", "two")
		r.won("dated before its past", "behind", "one")
		r.s.whole()
	})
}

// deletes has a host delete a key, with the version of a write or without.
func (r *race) deletes(l *liar, after time.Duration, key, version string) {
	r.Helper()
	tok, err := capstore.ParseInvocation(r.o.session.Invoke(captest.TokenOptions{
		Proofs: []tinycloud.Hash{r.o.proof}, Expires: r.start.Add(after + time.Minute), Caps: r.kv("/"+key, "tinycloud.kv/del"),
	}))
	if err != nil {
		r.Fatal(err)
	}
	op := dag.Op{Key: key, Delete: true}
	if version != "" {
		epoch := r.said[version].Entry.Epoch
		op.Version = &dag.Version{Seq: r.seq(epoch), Epoch: epoch}
	}
	r.sign(l, after, said{tok, []dag.Op{op}}, "delete of "+key)
}

// seq is the length of the longest path to an epoch.
func (r *race) seq(epoch tinycloud.Hash) uint64 {
	r.Helper()
	seqs := map[tinycloud.Hash]uint64{}
	for _, b := range all(r.T, r.s, r.o.space) { // parents first
		e, err := dag.DecodeEpoch(b.Epoch)
		if err != nil {
			r.Fatal(err)
		}
		for _, p := range e.Parents {
			seqs[b.Entry.Epoch] = max(seqs[b.Entry.Epoch], seqs[p]+1)
		}
	}
	return seqs[epoch]
}

// gone checks that a key holds nothing, and which writes are its conflicts.
func (r *race) gone(when, key string, lost ...string) {
	r.Helper()
	r.s.redate()
	if _, err := r.s.Get(r.Context(), r.o.space, key); !errors.Is(err, tinycloud.ErrNotFound) {
		r.Errorf("%s: %s is not deleted: %v", when, key, err)
	}
	list := conflicts(r.T, r.s, r.o.space)[key]
	for _, value := range lost {
		if !list[r.events[value]] || len(list) != len(lost) {
			r.Errorf("%s: %q of %s is no conflict, or more are: %d", when, value, key, len(list))
		}
	}
	if _, there := naive(r.T, all(r.T, r.s, r.o.space))[key]; there {
		r.Errorf("%s: naively %s is not deleted", when, key)
	}
}

// A delete removes what is at or below the greatest write that it has seen, by the order as it is now: when that write's
// time changes, a write beside it comes back, and goes again. It does not matter which write the delete names, nor when it
// was made.
func TestDeletesOfWritesThatMove(t *testing.T) {
	onRaces(t, onlyMemory, func(r *race) {
		for _, key := range []string{"latest", "named"} {
			r.writes(r.one, 100*time.Second, key, "low "+key)
		}
		for _, key := range []string{"latest", "named", "older"} {
			r.writes(r.one, 300*time.Second, key, "high "+key)
			r.rivals[key] = nil // the deletes have seen them
		}
		r.deletes(r.one, 310*time.Second, "latest", "")
		r.deletes(r.one, 310*time.Second, "named", "low named")
		r.deletes(r.one, 900*time.Second, "older", "")
		r.writes(r.two, 200*time.Second, "latest", "beside latest")
		r.writes(r.two, 200*time.Second, "named", "beside named")
		r.writes(r.two, 400*time.Second, "older", "beside older")
		moved := []string{"latest", "named"}
		same := func(when string) {
			r.Helper()
			for _, key := range moved {
				r.gone(when, key, "beside "+key)
			}
			// It is above what the delete has seen, though it is older than the delete.
			r.won(when, "older", "beside older")
		}
		same("at first")
		for _, key := range moved {
			r.x.say(r.T, r.s, r.x.witness(r.said["high "+key], r.start.Add(150*time.Second)))
		}
		for _, key := range moved {
			r.won("moved", key, "beside "+key)
		}
		r.s.whole()
		r.o.remove(r.T, r.s, r.x.delegation)
		same("moved back")
		r.s.whole()
	})
}
