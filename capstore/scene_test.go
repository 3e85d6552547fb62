package capstore_test

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// scene is an honest store and a host that says anything.
type scene struct {
	*testing.T
	s *testStore
	o *owner
	l *liar
}

// onScene runs a test with a scene.
func onScene(t *testing.T, test func(*scene)) {
	t.Run(onMemory, func(t *testing.T) {
		s, o, l := setUp(t)
		l.welcome(t, s)
		test(&scene{t, s, o, l})
	})
}

// said is an event that a host puts into an epoch.
type said struct {
	token *capstore.Token
	ops   []dag.Op
}

func (c *scene) put(tok *capstore.Token, key string) said {
	return said{tok, []dag.Op{write(key, key)}}
}

// epoch makes the liar's next entry, for an epoch of some events.
func (l *liar) epoch(at time.Time, parents []tinycloud.Hash, events ...said) hostlog.Bundle {
	var b hostlog.Bundle
	e := dag.Epoch{Parents: parents}
	for _, ev := range events {
		ref := dag.EventRef{Event: ev.token.ID}
		b.Events = append(b.Events, ev.token.Bytes)
		for _, op := range ev.ops {
			b.Ops, ref.Ops = append(b.Ops, op.Encode()), append(ref.Ops, op.ID())
		}
		e.Events = append(e.Events, ref)
	}
	b.Epoch = e.Encode()
	b.Entry = hostlog.Entry{Space: l.o.space, Host: l.host(), N: l.n, Prev: l.prev, Epoch: tinycloud.Sum(b.Epoch), At: at.UnixMilli()}
	return l.sign(b)
}

// says has a host make an epoch now on top of its last one and of further parents.
func (c *scene) says(l *liar, parents []tinycloud.Hash, events ...said) tinycloud.Hash {
	c.Helper()
	return c.saysAt(l, c.o.clock.now(), parents, events...)
}

func (c *scene) saysAt(l *liar, at time.Time, parents []tinycloud.Hash, events ...said) tinycloud.Hash {
	c.Helper()
	if l.n > 0 {
		parents = append([]tinycloud.Hash{l.last}, parents...)
	}
	l.say(c.T, c.s, l.epoch(at, parents, events...))
	return l.last
}

func (c *scene) heads() []tinycloud.Hash { return c.s.status(c.o.space).Heads }

// counts checks whether a write of a key to itself counts.
func (c *scene) counts(key string, want bool) {
	c.Helper()
	r, err := c.s.Get(c.Context(), c.o.space, key)
	if got := err == nil && r.Value == tinycloud.Sum([]byte(key)); got != want {
		c.Errorf("the write of %q counts: %v, want %v", key, got, want)
	}
}

// invokes signs an invocation to put a key.
func (c *scene) invokes(by *captest.SessionKey, o captest.TokenOptions, keys ...string) *capstore.Token {
	c.Helper()
	if o.Caps = (captest.Caps{}); o.Expires.IsZero() {
		o.Expires = c.o.clock.now().Add(time.Minute)
	}
	for _, key := range keys {
		o.Caps[c.o.space.String()+"/kv/"+key] = []string{"tinycloud.kv/put"}
	}
	tok, err := capstore.ParseInvocation(by.Invoke(o))
	if err != nil {
		c.Fatal(err)
	}
	return tok
}

func (c *scene) kv(path string, abilities ...string) captest.Caps {
	return captest.Caps{c.o.space.String() + "/kv" + path: abilities}
}

func (c *scene) delegation(header string) said {
	c.Helper()
	tok, err := capstore.ParseDelegation(header)
	if err != nil {
		c.Fatal(err)
	}
	return said{token: tok}
}

func (c *scene) revocation(header string) said {
	c.Helper()
	tok, err := capstore.ParseRevocation(header)
	if err != nil {
		c.Fatal(err)
	}
	return said{token: tok}
}

// other is a further host; the delegation of 'by' lets it in with its first epoch.
func (c *scene) other(name string) *liar {
	return &liar{o: c.o, key: keys(name).SpaceKey(c.o.space)}
}

func (l *liar) session() *captest.SessionKey { return captest.SessionOf([32]byte(l.key.Seed())) }
