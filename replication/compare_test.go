package replication_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/oracletest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// newSQLOwner is an owner whose session may do all with databases, too.
func newSQLOwner(seed string) *owner {
	o := newOwner(seed)
	o.header = o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: time.Now().Add(240 * time.Hour), IssuedAt: time.Now(), Nonce: "nonce0000003",
		Caps: captest.Caps{
			o.space.String() + "/kv":  {"tinycloud.kv/put", "tinycloud.kv/get", "tinycloud.kv/del"},
			o.space.String() + "/sql": {"tinycloud.sql/*"},
		},
	})
	return o
}

// miscounting is the store of a host whose databases are not what their writes make.
type miscounting struct{ *capstore.Store }

func (m miscounting) SumOf(space tinycloud.SpaceID, asked hostlog.Sum) (hostlog.Sum, bool) {
	sum, ok := m.Store.SumOf(space, asked)
	sum.Content[0]++
	return sum, ok
}

// execute has a host carry out a statement on a database.
func (n *node) execute(db, ability, body string) string {
	n.t.Helper()
	tok := must(capstore.ParseInvocation(n.o.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{n.o.space.String() + "/sql/" + db: {"tinycloud.sql/" + ability}},
		Proofs: []tinycloud.Hash{captest.ID(n.o.header)}, Nonce: fmt.Sprint("nonce ", n.o.n.Add(1)), Expires: time.Now().Add(time.Minute),
	})))
	ctx, w := context.Background(), httptest.NewRecorder()
	err := n.store.Admit(ctx, tok)
	if err == nil {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/invoke", strings.NewReader(body))
		err = n.databases.Invoke(w, r, service.Call{Store: n.store, Token: tok, Space: n.o.space, Path: db, Ability: tok.Caps[0].Ability})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return w.Body.String()
}

// Hosts tell each other what they made of the same writes, soon after they met and every hour.
func TestContentIsCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		<-time.After(time.Until(time.UnixMilli(oracletest.Timed).Add(time.Hour))) // from when on times order writes
		f, o := newFabric(t), newSQLOwner("compared")
		var nodes []*node
		for i := range 3 {
			x := &node{t: t, o: o, name: keys(fmt.Sprint("host ", i)), f: f, dir: t.TempDir(), values: newMemValues(), serveSQL: i < 2}
			if i == 1 {
				x.lie = func(s *capstore.Store) replication.Store { return miscounting{s} }
			}
			x.start(t)
			if i == 0 {
				x.delegate(o.header)
			} else {
				x.join(nodes[0])
			}
			nodes = append(nodes, x)
		}
		same(t, nodes...)
		nodes[0].execute("db", "write", `{"action":"execute","sql":"CREATE TABLE t(v)"}`)
		same(t, nodes[:2]...)
		differing := func(want ...int) {
			t.Helper()
			synctest.Wait()
			for i, n := range nodes[:2] {
				if got := n.databases.Differing(o.space); got != want[i] {
					t.Errorf("%s: %d databases differ, expected %d", n.name, got, want[i])
				}
			}
		}
		nodes[1].execute("db", "read", `{"action":"query","sql":"SELECT * FROM t"}`)
		differing(0, 0)
		<-time.After(3 * time.Minute) // one of both has asked when the other had hashed nothing yet
		<-time.After(time.Hour)
		differing(1, 0)
		nodes[0].execute("db", "write", `{"action":"execute","sql":"INSERT INTO t VALUES(1)"}`)
		nodes[1].lie = nil
		nodes[1].stop()
		nodes[1].start(t)
		same(t, nodes[:2]...)
		nodes[1].execute("db", "read", `{"action":"query","sql":"SELECT * FROM t"}`)
		<-time.After(2 * time.Hour)
		differing(0, 0)
		for _, n := range nodes {
			for _, x := range nodes {
				if n != x {
					accuses(t, n, x, false)
				}
			}
		}
	})
}
