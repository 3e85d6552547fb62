package capstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// rows counts the rows of tables of a SQLite file.
func rows(t *testing.T, s *testStore, tables ...string) (out []int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // only read
	for _, table := range tables {
		var n int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// listing is a delegation of a wallet that lets a session list the delegations of its account.
func listing(c *clock, w *captest.Wallet, n int, statement string) string {
	space := w.Space("default")
	return w.SignDelegation(captest.DelegationOptions{
		Audience: captest.NewSession("session").URI(), IssuedAt: c.now(), Expires: c.now().Add(48 * time.Hour), Nonce: fmt.Sprintf("nonce%08d", n), Statement: statement,
		Caps: captest.Caps{space.String() + "/kv": {"tinycloud.kv/get"}, space.String() + "/delegation": {"tinycloud.delegation/list"}},
	})
}

// TestUnhostedDelegationsGo has strangers send delegations of Spaces that are not hosted here: what of them is stored goes
// after an hour, but of those whose Space has come to be hosted.
func TestUnhostedDelegationsGo(t *testing.T) { everywhere(t, testUnhostedDelegationsGo) }

func testUnhostedDelegationsGo(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	s.delegate(o.header)
	for i := range 3 {
		if d := s.delegate(listing(c, captest.NewWallet(fmt.Sprint("stranger ", i)), i, "")); len(d.Skipped) != 1 {
			t.Fatalf("%+v", d)
		}
	}
	far := newOwner(t, "far", c)
	s.delegate(far.header)
	if err := s.Revoke(t.Context(), revocation(t, far.wallet.SignRevocation(far.proof))); err != nil {
		t.Fatal(err)
	}
	c.ms.Add((59 * time.Minute).Milliseconds())
	if err := s.ForgetUnhosted(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.hostOn(s)
	if err := o.put(s, "a", "1"); err != nil {
		t.Errorf("with a delegation that waited 59 minutes: %v", err)
	}
	c.ms.Add((2 * time.Minute).Milliseconds())
	if err := s.ForgetUnhosted(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := o.put(s, "a", "2"); err != nil {
		t.Errorf("once the others are forgotten: %v", err)
	}
	if !strings.Contains(s.path, "://") && s.path != capstore.InMemory { // alice's two delegations, and that one is revoked
		if got := rows(t, s, "tokens", "mentions", "parties", "listers", "unhosted", "revoked"); fmt.Sprint(got) != "[2 2 4 0 1 1]" {
			t.Errorf("left: %v", got)
		}
	}
	s.delegate(far.header)
	far.hostOn(s)
	if err := far.put(s, "a", "1"); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("what was revoked is in force again: %v", err)
	}
}

// TestUnhostedDelegationsAreFew has more sent than are kept: the oldest go.
func TestUnhostedDelegationsAreFew(t *testing.T) {
	c := newClock()
	s := openNew(t, "one", c)
	long := strings.Repeat("x", 7<<10)
	const sent = 16 << 20 / (7 << 10)
	var last string
	for i := range sent {
		last = listing(c, captest.NewWallet("stranger"), i, long)
		s.delegate(last)
		c.ms.Add(1)
	}
	got := rows(t, s, "tokens", "unhosted")
	if got[0] != got[1] || got[0] >= sent || got[0] < sent/3 {
		t.Errorf("of %d there are %v", sent, got)
	}
	if d := s.delegate(last); len(d.Activated)+len(d.Skipped) != 1 {
		t.Errorf("the last: %+v", d)
	}
}

// TestUnhostedAllowList has nothing stored of Spaces that this node would not host.
func TestUnhostedAllowList(t *testing.T) {
	c, asked := newClock(), 0
	s := openWith(t, "one", c, newDatabase(t), func(o *capstore.Options) {
		o.Allow = func(_ context.Context, id tinycloud.SpaceID) error {
			asked++
			if id == captest.NewWallet("alice").Space("default") {
				return nil
			}
			return tinycloud.Refuse(tinycloud.ErrForbidden, "not here")
		}
	})
	o := newOwner(t, "alice", c)
	s.delegate(o.header)
	if d := s.delegate(listing(c, captest.NewWallet("stranger"), 1, "")); len(d.Skipped) != 1 || len(d.Activated) != 0 || d.CID == "" {
		t.Errorf("%+v", d)
	}
	if got := rows(t, s, "tokens", "unhosted"); fmt.Sprint(got) != "[1 1]" || asked != 2 {
		t.Errorf("stored %v, asked %d times", got, asked)
	}
}
