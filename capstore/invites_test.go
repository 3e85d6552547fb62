package capstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

func inviteID(n int) tinycloud.Hash { return tinycloud.Sum(fmt.Append(nil, n)) }

func (s *testStore) invite(n int, life time.Duration) capstore.Invite {
	s.t.Helper()
	i, err := s.AddInvite(s.t.Context(), inviteID(n), life)
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

func (s *testStore) use(n int, peer string, addrs ...string) error {
	s.t.Helper()
	return s.UseInvite(s.t.Context(), inviteID(n), hostlog.PairedNode{Peer: peer, Addrs: addrs})
}

func TestInvite(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		s := openNew(t, "one", c)
		made := c.now()
		i := s.invite(1, time.Hour)
		if i.ID != inviteID(1) || !i.Made.Equal(made) || !i.Expires.Equal(made.Add(time.Hour)) || i.UsedBy != "" {
			t.Errorf("%+v", i)
		}
		refused := func(what string, err error, why string) {
			t.Helper()
			if !errors.Is(err, tinycloud.ErrUnauthorized) || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: %v", what, err)
			}
		}
		refused("an invite that nobody made", s.use(2, "b"), "unknown")
		if list := paired(t, s); len(list) != 0 {
			t.Errorf("paired %+v", list)
		}
		c.ms.Add(time.Minute.Milliseconds())
		for _, addr := range []string{"/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"} { // the same node may use it again
			if err := s.use(1, "b", addr); err != nil {
				t.Fatal(err)
			}
		}
		refused("an invite of another node", s.use(1, "c"), "used by b")
		list := paired(t, s)
		if len(list) != 1 || list[0].Peer != "b" || !list[0].Back || len(list[0].Addrs) != 2 || !list[0].Since.Equal(c.now()) {
			t.Errorf("paired %+v", list)
		}
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for len(s.told()) < 2 { // on a server they are told by the follower
			select {
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatal("what was new is not told")
			}
		}
		told := len(s.told())
		if err := s.use(1, "b", "/ip4/1.2.3.4/tcp/2", "/ip4/1.2.3.4/tcp/1"); err != nil || len(s.told()) != told {
			t.Errorf("nothing is new, and told %d times: %v", len(s.told())-told, err)
		}
		invites, err := s.Invites(t.Context())
		if err != nil || len(invites) != 1 || invites[0].UsedBy != "b" || invites[0].ID != i.ID || !invites[0].Expires.Equal(i.Expires) {
			t.Errorf("%+v, %v", invites, err)
		}
		c.ms.Store(i.Expires.UnixMilli())
		refused("an invite that expired", s.use(1, "b"), "expired at "+i.Expires.UTC().Format(time.RFC3339))
		if invites, err := s.Invites(t.Context()); err != nil || len(invites) != 0 {
			t.Errorf("%+v, %v", invites, err)
		}
	})
}

// A node that was unpaired does not come back by the invite it used.
func TestUnpairEndsInvites(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		s := openNew(t, "one", newClock())
		s.invite(1, time.Hour)
		s.invite(2, time.Hour)
		if err := s.use(1, "b"); err != nil {
			t.Fatal(err)
		}
		if err := s.Unpair(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		if err := s.use(1, "b"); !errors.Is(err, tinycloud.ErrUnauthorized) || s.PairedWith("b") {
			t.Errorf("it is paired again: %v", err)
		}
		if err := s.use(2, "b"); err != nil || !s.PairedWith("b") {
			t.Errorf("by a new invite: %v", err)
		}
	})
}

// Of many that use an invite at once one wins, in whatever process.
func TestInviteIsUsedOnce(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		stores := []*testStore{open(t, "one", c, url)}
		if k := kind(t); k == onPostgres || k == onMySQL {
			stores = append(stores, open(t, "one", c, url))
		}
		stores[0].invite(1, time.Hour)
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				switch err := stores[i%len(stores)].use(1, fmt.Sprint("peer", i)); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, tinycloud.ErrUnauthorized):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			t.Errorf("used by %d nodes", n)
		}
		if list, err := stores[0].Paired(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("paired %+v, %v", list, err)
		}
	})
}

func TestInviteBounds(t *testing.T) {
	c := newClock()
	s := openNew(t, "one", c)
	for _, life := range []time.Duration{0, -time.Hour, capstore.MaxInviteLife + time.Millisecond} {
		if _, err := s.AddInvite(t.Context(), inviteID(0), life); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("life of %s: %v", life, err)
		}
	}
	for i := range 64 {
		s.invite(i, capstore.MaxInviteLife)
	}
	if _, err := s.AddInvite(t.Context(), inviteID(64), time.Hour); !errors.Is(err, tinycloud.ErrBusy) {
		t.Errorf("one more open one: %v", err)
	}
	for i := range 256 { // used ones are bounded too
		if i >= 64 {
			s.invite(i, capstore.MaxInviteLife)
		}
		if err := s.use(i, "b"); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := s.AddInvite(t.Context(), inviteID(256), time.Hour); !errors.Is(err, tinycloud.ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	c.ms.Add(capstore.MaxInviteLife.Milliseconds())
	s.invite(256, time.Hour)
	var rows int
	db := s.inspect()
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM invites").Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows are left, %v", rows, err)
	}
}

// An invite that finds no room for its node stays open.
func TestInviteOfOneTooMany(t *testing.T) {
	s := openNew(t, "one", newClock())
	for i := range capstore.MaxPaired {
		if err := s.Pair(t.Context(), hostlog.PairedNode{Peer: fmt.Sprint("peer", i)}); err != nil {
			t.Fatal(err)
		}
	}
	s.invite(1, time.Hour)
	if err := s.use(1, "more"); !errors.Is(err, tinycloud.ErrBusy) {
		t.Errorf("%v", err)
	}
	if err := s.Unpair(t.Context(), "peer7"); err != nil {
		t.Fatal(err)
	}
	if err := s.use(1, "other"); err != nil {
		t.Errorf("after there was room: %v", err)
	}
}
