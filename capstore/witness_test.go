package capstore_test

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// witness makes the host's next entry, for an epoch that another host has made.
func (l *liar) witness(b hostlog.Bundle, at time.Time) hostlog.Bundle {
	b.Entry = hostlog.Entry{Space: l.o.space, Host: l.host(), N: l.n, Prev: l.prev, Epoch: b.Entry.Epoch, At: at.UnixMilli()}
	return l.sign(b)
}

// race is two hosts that write without seeing each other, beside a third.
type race struct {
	*scene
	one, two, x *liar
	start       time.Time
	from        []tinycloud.Hash           // what all of them build on
	events      map[string]tinycloud.Hash  // of the writes, by value
	said        map[string]hostlog.Bundle  // likewise
	rivals      map[string]map[string]bool // by key, the values written
}

// onRaces runs a test with a race on some databases.
func onRaces(t *testing.T, on func(*testing.T, func(*testing.T)), test func(*race)) {
	on(t, func(t *testing.T) {
		s, o, l := setUp(t)
		l.welcome(t, s)
		c := &scene{t, s, o, l}
		r := &race{
			scene: c, one: l, two: c.other("two"), x: c.other("x"), start: o.clock.now(),
			events: map[string]tinycloud.Hash{}, said: map[string]hostlog.Bundle{}, rivals: map[string]map[string]bool{},
		}
		r.two.welcome(t, s)
		r.x.welcome(t, s)
		r.from = c.heads()
		o.clock.ms.Add(time.Hour.Milliseconds()) // nothing that is said is of the future
		test(r)
	})
}

func onlyMemory(t *testing.T, test func(*testing.T)) { t.Run(onMemory, test) }

// writes has a host write a key so long after the start, with a token that ends a minute later.
func (r *race) writes(l *liar, after time.Duration, key, value string) {
	r.Helper()
	r.writesUntil(l, after, after+time.Minute, key, value)
}

func (r *race) writesUntil(l *liar, after, ends time.Duration, key, value string) {
	r.Helper()
	tok := r.invokes(r.o.session, captest.TokenOptions{Proofs: []tinycloud.Hash{r.o.proof}, Expires: r.start.Add(ends), Nonce: "write of " + value}, key)
	r.sign(l, after, said{tok, []dag.Op{write(key, value)}}, value)
	if r.rivals[key] == nil {
		r.rivals[key] = map[string]bool{}
	}
	r.rivals[key][value] = true
}

// sign has a host make an epoch on its last one and on what all build on.
func (r *race) sign(l *liar, after time.Duration, event said, name string) {
	r.Helper()
	parents := []tinycloud.Hash{l.last}
	for _, p := range r.from {
		if p != l.last {
			parents = append(parents, p)
		}
	}
	b := l.epoch(r.start.Add(after), parents, event)
	l.say(r.T, r.s, b)
	r.said[name], r.events[name] = b, event.token.ID
}

// won checks which value a key holds and that all others are its conflicts, on the store and by the letter of the rules.
func (r *race) won(when, key, value string) {
	r.Helper()
	r.s.redate()
	if got, err := r.s.Get(r.Context(), r.o.space, key); err != nil || got.Value != tinycloud.Sum([]byte(value)) {
		r.Errorf("%s: %s is not %q, %v", when, key, value, err)
	}
	lost := conflicts(r.T, r.s, r.o.space)[key]
	for rival := range r.rivals[key] {
		if lost[r.events[rival]] == (rival == value) || len(lost) != len(r.rivals[key])-1 {
			r.Errorf("%s: %q of %s is a conflict: %v, of %d", when, rival, key, lost[r.events[rival]], len(lost))
		}
	}
	if naive(r.T, all(r.T, r.s, r.o.space))[key] != tinycloud.Sum([]byte(value)) {
		r.Errorf("%s: naively %s is not %q", when, key, value)
	}
}

// A host that witnesses another's write with an early time makes it lose, and what was written after it on the same host
// with it. Its removal undoes that.
func TestEarlyWitness(t *testing.T) {
	onRaces(t, everywhere, func(r *race) {
		r.writes(r.one, 300*time.Second, "k", "one's")
		r.sign(r.one, 300*time.Second, r.delegation(r.o.header), "between") // it has the time of what it builds on
		r.writes(r.one, 250*time.Second, "after", "one's, after")           // likewise, for it can't be before that
		r.writes(r.two, 200*time.Second, "k", "two's")
		r.writes(r.two, 275*time.Second, "after", "two's, after")
		r.won("at first", "k", "one's")
		r.won("at first", "after", "one's, after")

		r.x.say(r.T, r.s, r.x.witness(r.said["one's"], r.start.Add(100*time.Second)))
		r.won("witnessed early", "k", "two's")
		r.won("witnessed early", "after", "two's, after")

		r.o.remove(r.T, r.s, r.x.delegation)
		r.won("without the witness", "k", "one's")
		r.won("without the witness", "after", "one's, after")
		r.s.whole()

		// Let in again it counts for what it says from now on.
		r.o.clock.ms.Add(1000)
		r.s.delegate(r.o.signHost(r.x.host()))
		r.won("let in again", "k", "one's")
		r.s.whole()
		if kind(r.T) == onMemory {
			return
		}
		r.s.stop()
		r.s = open(r.T, string(r.s.name), r.o.clock, r.s.path)
		r.won("opened again", "k", "one's")
	})
}

// A witness moves a write no further than to 420 s before its token ends.
func TestBoundOfAnEarlyWitness(t *testing.T) {
	onRaces(t, onlyMemory, func(r *race) {
		r.writesUntil(r.one, 590*time.Second, 600*time.Second, "below", "one's")
		r.writesUntil(r.one, 590*time.Second, 600*time.Second, "above", "one's, too")
		r.writes(r.two, 179*time.Second, "below", "two's of 179")
		r.writes(r.two, 181*time.Second, "above", "two's of 181")
		r.won("at first", "above", "one's, too")
		for _, value := range []string{"one's", "one's, too"} {
			r.x.say(r.T, r.s, r.x.witness(r.said[value], r.start.Add(time.Second)))
		}
		r.won("witnessed", "below", "one's")
		r.won("witnessed", "above", "two's of 181")
		r.s.whole()
	})
}
