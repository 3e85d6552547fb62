package replication_test

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// When a joining Space opens before its time: one row for each clause of the rule, and for its edges.
func TestMayOpen(t *testing.T) {
	const limit = 10 * time.Second
	type (
		view  = replication.JoinView
		node  = replication.NamedNode
		other = replication.JoinPeer
	)
	none := node{Answer: replication.AnswerNone}
	silent, quiet := node{Silent: limit}, node{Silent: limit - 1}
	host := func(id peer.ID) node { return node{Answer: replication.AnswerHost, Host: id} }
	gone := func(id peer.ID, d time.Duration) node {
		return node{Answer: replication.AnswerHost, Host: id, Silent: d}
	}
	serving := func(id peer.ID) other { return other{ID: id, Whole: true} }
	same := func(id peer.ID) other { return other{ID: id, Whole: true, Joining: true, Equal: true} }
	ahead := func(id peer.ID) other { return other{ID: id, Whole: true, Joining: true} } // has more by now, or less
	fresh := func(id peer.ID) other { return other{ID: id} }                             // not compared yet
	for _, tt := range []struct {
		name string
		view view
		want hostlog.Ending
	}{
		{"nobody named, nobody met", view{}, ""},
		{"nobody named, a host serves", view{Peers: []other{serving("x")}, Others: true}, hostlog.EndedByHistory},
		{"a host not compared yet", view{Peers: []other{fresh("x")}}, ""},
		{"none", view{Named: []node{none}}, hostlog.EndedByNone},
		{"none from all", view{Named: []node{none, none}}, hostlog.EndedByNone},
		{"one has not answered", view{Named: []node{none, {}}}, ""},
		{"one is silent", view{Named: []node{none, quiet}}, ""},
		{"one was silent for long", view{Named: []node{none, silent}}, hostlog.EndedByNone},
		{"all were silent for long", view{Named: []node{silent}}, hostlog.EndedByNone},
		{"none, but a part of a history", view{Named: []node{none}, Others: true}, ""},
		{"silence, but a part of a history", view{Named: []node{silent}, Others: true}, ""},
		{"none to a restored host", view{Named: []node{none}, Restored: true}, ""},
		{"silence to a restored host", view{Named: []node{silent}, Restored: true}, ""},
		{"none, and a host that is not compared", view{Named: []node{none}, Peers: []other{fresh("x")}}, ""},
		{"a named host not connected", view{Named: []node{host("x")}}, ""},
		{"a named host that refuses for long", view{Named: []node{gone("x", limit)}}, ""},
		{"a named host serves", view{Named: []node{host("x")}, Peers: []other{serving("x")}, Others: true}, hostlog.EndedByHistory},
		{"a restored one finds a host that serves", view{Restored: true, Named: []node{host("x")}, Peers: []other{serving("x")}, Others: true}, hostlog.EndedByHistory},
		{"another one has not answered", view{Named: []node{host("x"), {}}, Peers: []other{serving("x")}, Others: true}, ""},
		{"another one says none", view{Named: []node{host("x"), none}, Peers: []other{serving("x")}, Others: true}, hostlog.EndedByHistory},
		{"another one was silent for long", view{Named: []node{host("x"), silent}, Peers: []other{serving("x")}, Others: true}, hostlog.EndedByHistory},
		{"another host is not compared yet", view{Named: []node{host("x"), host("y")}, Peers: []other{serving("x"), fresh("y")}, Others: true}, ""},
		{"another host went away just now", view{Named: []node{host("x"), gone("y", limit-1)}, Peers: []other{serving("x")}, Others: true}, ""},
		{"another host went away long ago", view{Named: []node{host("x"), gone("y", limit)}, Peers: []other{serving("x")}, Others: true}, hostlog.EndedByHistory},
		{"both fresh, the least", view{Named: []node{host("x")}, Peers: []other{same("x")}, Others: true, Writers: []peer.ID{"x"}}, hostlog.EndedByLeast},
		{"both fresh, not the least", view{Self: "z", Named: []node{host("x")}, Peers: []other{same("x")}, Others: true, Writers: []peer.ID{"x"}}, ""},
		{"both fresh, not equal", view{Named: []node{host("x")}, Peers: []other{ahead("x")}, Others: true, Writers: []peer.ID{"x"}}, ""},
		{"both restored", view{Restored: true, Peers: []other{same("x")}, Others: true, Writers: []peer.ID{"x"}}, hostlog.EndedByLeast},
		{"three fresh", view{Peers: []other{same("x"), same("y")}, Others: true, Writers: []peer.ID{"x", "y"}}, hostlog.EndedByLeast},
		{"three fresh, one not equal", view{Peers: []other{same("x"), ahead("y")}, Others: true, Writers: []peer.ID{"x", "y"}}, ""},
		{"three fresh, one less", view{Peers: []other{same("x"), same("a")}, Others: true, Writers: []peer.ID{"x", "a"}}, ""},
		{"a log of a host that is away", view{Peers: []other{same("x")}, Others: true, Writers: []peer.ID{"x", "y"}}, ""},
		{"the least, one has not answered", view{Named: []node{{}}, Peers: []other{same("x")}, Others: true, Writers: []peer.ID{"x"}}, ""},
		{"one serves, another is joining", view{Peers: []other{serving("x"), same("y")}, Others: true, Writers: []peer.ID{"x", "y"}}, hostlog.EndedByHistory},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := tt.view
			v.Timeout = limit
			if v.Self == "" {
				v.Self = "m"
			}
			if why, may := replication.MayOpen(v); why != tt.want || may != (tt.want != "") {
				t.Errorf("opens by %q, %v; want %q", why, may, tt.want)
			}
		})
	}
}
