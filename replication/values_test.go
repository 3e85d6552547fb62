package replication_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

func random(seed uint64, n int) string {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	_, _ = rng.Read(b)
	return string(b)
}

func TestValuesOfAllSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("sizes")
		nodes := cluster(t, f, o, 2)
		sizes := []int{0, 1, 4096, 4097, 40_000, 64 << 10, 64<<10 + 1, 300_000, 1 << 20, 1<<20 + 1, 5 << 20}
		for i, n := range sizes {
			nodes[i%2].put(fmt.Sprint("size/", n), random(uint64(i), n))
		}
		if d := same(t, nodes...); d > time.Second {
			t.Errorf("live: took %s", d)
		}
		late := newNode(t, f, o, "late")
		late.join(nodes[0])
		same(t, nodes[0], nodes[1], late)
		for i, size := range sizes {
			for _, n := range []*node{nodes[0], nodes[1], late} {
				if n.get(fmt.Sprint("size/", size)) != random(uint64(i), size) {
					t.Errorf("%s: value of %d bytes is another", n.name, size)
				}
			}
		}
	})
}

// A host that lacks many values fetches few bytes at a time, however large they turn out to be: they may all be in memory
// at once.
func TestFetchesAreSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("many")
		nodes := cluster(t, f, o, 1)
		for i := range 12 {
			nodes[0].put(fmt.Sprint("many/", i), random(uint64(i), 512<<10))
		}
		late := newNode(t, f, o, "late")
		late.join(nodes[0])
		same(t, nodes[0], late)
		if got := late.get("many/11"); got != random(11, 512<<10) {
			t.Error("another value")
		}
		if f.fetched < 512<<10 || f.fetched > 2<<20 {
			t.Errorf("%d bytes in one fetch", f.fetched)
		}
	})
}

// Who says that values are small and gives large ones is not listened to for long.
func TestSizesThatLie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for most, want := range map[int64]int{3 << 20: 3, 3<<20 - 1: 2, 1: 0, 100 << 20: 20} {
			ctx, cancel := context.WithCancel(t.Context())
			came := make(chan blocks.Block)
			go func() {
				defer close(came)
				for range 20 {
					select {
					case came <- blocks.NewBlock(make([]byte, 1<<20)):
					case <-ctx.Done():
						return
					}
				}
			}()
			out := replication.AsSaid(ctx, cancel, came, most)
			synctest.Wait() // nothing was taken yet
			got := 0
			for range out {
				got++
			}
			if got != want || (ctx.Err() != nil) != (want < 20) {
				t.Errorf("%d of %d bytes: %d blocks, %v", most, 20<<20, got, ctx.Err())
			}
			cancel()
		}
	})
}

// A chunk is withheld, a second host names a manifest with a swapped chunk, the reader restarts: the value
// comes whole once an honest holder gives all of it, and never another one.
func TestLargeValueDespiteLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("large")
		nodes := cluster(t, f, o, 2)
		honest, liar := nodes[0], nodes[1]
		value := random(1, 5<<20)
		hash := tinycloud.Sum([]byte(value))
		honest.put("big", value)
		same(t, nodes...)
		_, manifest, err := blockstore.BuildManifest(bytes.NewReader([]byte(value)))
		if err != nil || len(manifest.Links) != 5 {
			t.Fatal(manifest, err)
		}
		hide := func(h func(tinycloud.Hash) bool) {
			for _, n := range nodes {
				n.values.mu.Lock()
				n.values.withhold = h
				n.values.mu.Unlock()
			}
		}
		other := random(2, 1<<20)
		liar.values.put([]byte(other))
		lie := blockstore.Manifest{Size: manifest.Size, Links: append([]tinycloud.Hash{}, manifest.Links...)}
		lie.Links[3] = tinycloud.Sum([]byte(other))
		liar.values.lie[hash] = lie
		asked := 0 // for the manifest that lies, by any host
		hide(func(h tinycloud.Hash) bool {
			if h == tinycloud.Sum(lie.Encode()) {
				asked++
			}
			return h == manifest.Links[3]
		})

		late := newNode(t, f, o, "late")
		late.join(nodes...)
		until(t, "history", func() bool {
			return late.status().Epochs == honest.status().Epochs && late.get("big") == "(on its way)"
		})
		<-time.After(10 * time.Minute)
		synctest.Wait()
		if got := late.get("big"); got != "(on its way)" {
			t.Fatalf("with a chunk withheld there is a value of %d bytes", len(got))
		}
		if st := late.status(); st.Wants != 1 {
			t.Fatalf("%d wants", st.Wants)
		}
		if asked == 0 || asked > len(nodes) {
			t.Errorf("%d looks for a manifest that gives another value", asked)
		}
		late.stop()
		late.start(t)
		hide(nil)
		until(t, "the value comes", func() bool { return late.get("big") == value })
		until(t, "nothing is wanted", func() bool { return late.status().Wants == 0 })
	})
}

// A reader who cannot wait for the next attempt asks for one now.
func TestFetchNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("now")
		nodes := cluster(t, f, o, 2)
		hidden := func(yes bool) {
			nodes[0].values.mu.Lock()
			nodes[0].values.withhold = func(tinycloud.Hash) bool { return yes }
			nodes[0].values.mu.Unlock()
		}
		for i, size := range []int{200_000, 3 << 20} {
			hidden(true)
			key, value := fmt.Sprint("v/", i), random(uint64(i+10), size)
			nodes[0].put(key, value)
			until(t, "the operation", func() bool { return nodes[1].get(key) == "(on its way)" })
			<-time.After(5 * time.Minute) // waits between attempts are long now
			synctest.Wait()
			want := hostlog.Want{Hash: tinycloud.Sum([]byte(value))}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			if err := nodes[1].r.Fetch(ctx, want); err == nil {
				t.Error("a withheld value came")
			}
			cancel()
			hidden(false)
			until(t, "no attempt is under way", func() bool { return true })
			began := time.Now()
			for {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				err := nodes[1].r.Fetch(ctx, want)
				cancel()
				if err == nil {
					break
				}
				if time.Since(began) > 30*time.Second {
					t.Fatal(err)
				}
			}
			if nodes[1].get(key) != value {
				t.Error("the value is another")
			}
		}
		nodes[0].stop()
		synctest.Wait()
		err := nodes[1].r.Fetch(t.Context(), hostlog.Want{Hash: tinycloud.Hash{1}})
		if !errors.Is(err, tinycloud.ErrUnavailable) {
			t.Errorf("without a peer: %v", err)
		}
	})
}
