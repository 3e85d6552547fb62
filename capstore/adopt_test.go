package capstore_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// A Space that begins adopts what was posted before in parts, between which others write, through a restart, and what
// was not adopted yet counts.
func TestAdoptionInParts(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		const stored, atOnce = 60, 4
		c := newClock()
		o, path := newOwner(t, "alice", c), newDatabase(t)
		few := func(s *capstore.Store) { capstore.SetAdoptAtOnce(s, atOnce) }
		s := openWith(t, "one", c, path, func(*capstore.Options) {}, few)
		other := openNew(t, "other", c)
		var ids []tinycloud.Hash
		sessions := map[tinycloud.Hash]*captest.SessionKey{}
		for i := range stored {
			key := captest.NewSession(fmt.Sprint(i))
			header := o.wallet.SignDelegation(captest.DelegationOptions{
				Audience: key.URI(), IssuedAt: c.now(), Expires: c.now().Add(time.Hour),
				Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"}},
			})
			if d := s.delegate(header); len(d.Skipped) != 1 {
				t.Fatalf("%+v", d)
			}
			ids, sessions[captest.ID(header)] = append(ids, captest.ID(header)), key
		}
		slices.SortFunc(ids, func(a, b tinycloud.Hash) int { return slices.Compare(a[:], b[:]) })
		dead, last := ids[1], ids[len(ids)-1]
		if err := s.Revoke(t.Context(), o.revocation(t, dead)); err != nil {
			t.Fatal(err)
		}

		o.hostOn(s)
		tok, err := capstore.ParseInvocation(sessions[last].Invoke(captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/put"}}, Proofs: []tinycloud.Hash{last}, Expires: c.now().Add(time.Minute),
		}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(t.Context(), tok, ops(putOp(o.space, "k", "v")), nil); err != nil {
			t.Fatal(err)
		}
		o.hostOn(other)
		other.pull(s, o.space)
		if got := other.get(o.space, "k"); got != "v" {
			t.Errorf("elsewhere, before all is adopted: %q", got)
		}
		commits := s.told()
		if path != capstore.InMemory {
			s.stop()
			s = openWith(t, "one", c, path, func(*capstore.Options) {}, few)
		}
		if err := s.Adopt(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, commit := range append(commits, s.told()...) { // some twice
			if n := len(commit.Local); n > atOnce+2 { // and the delegation that makes a host, and a revocation
				t.Errorf("a transaction of %d epochs", n)
			}
		}
		other.pull(s, o.space)
		// Those that were stored, the host delegation of each, a revocation, and a put.
		if got := other.status(o.space).Events; got != stored+4 {
			t.Errorf("%d events", got)
		}
		if revoked := statusOf(t, other, sessions[dead], o, dead); revoked.State != capstore.StateRevoked {
			t.Errorf("what was revoked before: %+v", revoked)
		}
	})
}
