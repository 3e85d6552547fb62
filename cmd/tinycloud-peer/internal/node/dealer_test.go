package node

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// deals are a dealer and what it dealt to its own process.
type deals struct {
	*dealer
	t   *testing.T
	own shards
}

func newDeals(t *testing.T, led time.Duration) *deals {
	x := &deals{t: t}
	x.dealer = newDealer(func() time.Duration { return led }, func(dealt shards, _ int) { x.own = dealt })
	return x
}

func (x *deals) asks(p *p2p.Process, q shardAsk) (a shardAnswer) {
	x.t.Helper()
	body, err := json.Marshal(q)
	if err == nil {
		body, err = x.ask(x.t.Context(), p, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &a)
	}
	if err != nil {
		x.t.Fatal(err)
	}
	return a
}

// A process gets its share when others have stopped what is to be its, and none is ever two processes'.
func TestShardsAreDealt(t *testing.T) {
	x := newDeals(t, time.Minute)
	if x.own != allShards {
		t.Fatalf("alone it has %x", x.own)
	}
	b, c := new(p2p.Process), new(p2p.Process)
	if a := x.asks(b, shardAsk{}); a.Shards != 0 || a.Members != 2 || a.For != leaseTime {
		t.Fatalf("before anything is free: %+v", a)
	}
	if x.own.count() != 32 {
		t.Fatalf("%d are left to the own process", x.own.count())
	}
	x.gaveBack(allShards) // it has not stopped yet
	if a := x.asks(b, shardAsk{}); a.Shards != 0 {
		t.Fatalf("dealt while in use: %x", a.Shards)
	}
	x.gaveBack(x.own)
	first := x.asks(b, shardAsk{})
	if first.Shards.count() != 32 || first.Shards&x.own != 0 {
		t.Fatalf("%x and %x", first.Shards, x.own)
	}
	x.asks(c, shardAsk{})
	x.gaveBack(x.own)
	less := x.asks(b, shardAsk{Using: first.Shards})
	if less.Shards.count() != 22 || less.Shards&^first.Shards != 0 {
		t.Fatalf("%x of %x", less.Shards, first.Shards)
	}
	early := x.asks(c, shardAsk{})
	if early.Shards&first.Shards != 0 || early.Shards&x.own != 0 {
		t.Fatalf("%x is in use: %x, %x", early.Shards, first.Shards, x.own)
	}
	x.asks(b, shardAsk{Using: less.Shards})
	late := x.asks(c, shardAsk{Using: early.Shards})
	if late.Shards|less.Shards|x.own != allShards || late.Shards.count()+less.Shards.count()+x.own.count() != shardCount {
		t.Fatalf("%x, %x, %x", x.own, less.Shards, late.Shards)
	}
}

// What a process had that died is dealt again when it must have stopped; what one had that left in order, at once.
func TestShardsOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newDeals(t, time.Minute)
		b := new(p2p.Process)
		share := func() {
			x.asks(b, shardAsk{})
			x.gaveBack(x.own)
			if a := x.asks(b, shardAsk{}); a.Shards.count() != 32 {
				t.Fatalf("%x", a.Shards)
			}
		}
		share()
		x.left(b)
		time.Sleep(leaseTime + stopTime - time.Millisecond)
		x.gaveBack(x.own)
		if x.own.count() != 32 {
			t.Fatalf("dealt too early: %x", x.own)
		}
		time.Sleep(time.Millisecond)
		x.gaveBack(x.own)
		if x.own != allShards {
			t.Fatalf("not dealt again: %x", x.own)
		}

		share()
		if a := x.asks(b, shardAsk{Leaving: true}); a.Shards != 0 || x.own != allShards {
			t.Fatalf("%x, %x", a.Shards, x.own)
		}
		x.left(b)
	})
}

// When the one that deals ends it waits until the others have stopped, and what it deals holds no longer than its lease.
func TestDealerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newDeals(t, 2*time.Second)
		b := new(p2p.Process)
		x.asks(b, shardAsk{})
		x.gaveBack(x.own)
		had := x.asks(b, shardAsk{})
		if had.For != 2*time.Second || had.Shards == 0 {
			t.Fatalf("%+v", had)
		}
		began, parted := time.Now(), make(chan struct{})
		go func() {
			x.part()
			close(parted)
		}()
		synctest.Wait()
		if a := x.asks(b, shardAsk{Using: had.Shards}); a.Shards != 0 {
			t.Errorf("%x is dealt at the end", a.Shards)
		}
		synctest.Wait()
		select {
		case <-parted:
			t.Error("it does not wait")
		default:
		}
		x.asks(b, shardAsk{})
		<-parted
		if took := time.Since(began); took != 0 {
			t.Errorf("it waited %s", took)
		}
		x.asks(b, shardAsk{Using: 1})
		x.part() // not for ever
		if took := time.Since(began); took != partTime {
			t.Errorf("it waited %s", took)
		}
	})
}
