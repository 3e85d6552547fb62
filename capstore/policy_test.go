package capstore_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// A policy says what is fetched, and what stays of the history.
func TestPolicies(t *testing.T) { everywhere(t, testPolicies) }

func testPolicies(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	a := openNew(t, "a", c)
	b := openWith(t, "b", c, newDatabase(t), func(o *capstore.Options) { o.Policy = capstore.All })
	o.member(a)
	o.member(b)
	a.delegate(o.header)
	values := map[tinycloud.Hash]string{}
	write := func(value string) {
		t.Helper()
		hash := tinycloud.Sum([]byte(value))
		values[hash] = value
		op := kv.Op{Space: o.space, Key: "k", Value: hash, Size: 1000}
		if _, err := a.Write(t.Context(), o.invoke(t, "k", "tinycloud.kv/put"), []kv.Op{op}, nil); err != nil {
			t.Fatal(err)
		}
		b.pull(a, o.space)
	}
	wants := func(what string, count int64, want ...string) {
		t.Helper()
		due, err := b.Wants(t.Context(), o.space, 10)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(due, func(x, y hostlog.Want) int { return cmp.Compare(values[x.Hash], values[y.Hash]) })
		var got []string
		for _, w := range due {
			got = append(got, fmt.Sprint(values[w.Hash], " past ", w.Past))
		}
		if lacks := b.status(o.space).Wants; !slices.Equal(got, want) || lacks != count {
			t.Errorf("%s: %q of %d are due, want %q of %d", what, got, lacks, want, count)
		}
	}
	arrive := func(value string) {
		t.Helper()
		if err := b.Arrived(t.Context(), o.space, tinycloud.Sum([]byte(value)), 1000, nil); err != nil {
			t.Fatal(err)
		}
	}
	set := func(p capstore.Policy) {
		t.Helper()
		if err := b.SetPolicy(t.Context(), o.space, p); err != nil {
			t.Fatal(err)
		}
		want, own := p, p != ""
		if !own {
			want = capstore.All
		}
		if got, is, err := b.Policy(t.Context(), o.space); got != want || is != own || err != nil {
			t.Errorf("policy %q %t %v, want %q %t", got, is, err, want, own)
		}
	}
	write("v1")
	write("v2")
	wants("all", 2, "v1 past true", "v2 past false")
	arrive("v1")
	arrive("v2")
	wants("all here", 0)
	wantUsage(t, b, o.space, 1000)
	write("v3")
	wants("all again", 1, "v3 past false")
	c.ms.Add((25 * time.Hour).Milliseconds())
	expire := func() {
		t.Helper()
		if err := b.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expire()
	wantHeld(t, b, o.space, "v1", true)

	set(capstore.Lazy)
	wants("lazy", 1)
	expire()
	wantHeld(t, b, o.space, "v1", false)
	set(capstore.Eager)
	wants("eager", 1, "v3 past false")
	set("")
	wants("all of the node", 3, "v1 past true", "v2 past true", "v3 past false")
	wantUsage(t, b, o.space, 0)
	if err := b.SetPolicy(t.Context(), o.space, "some"); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Error(err)
	}
	if b.path == capstore.InMemory {
		return
	}
	b.stop()
	b = open(t, "b", c, b.path) // where eager is the node's
	if err := b.FollowPolicies(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants("eager by another default", 1, "v3 past false")
}
