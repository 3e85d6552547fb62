package node

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// What is said on the local network.
var (
	SealLAN = sealLAN
	OpenLAN = openLAN
)

// Probe returns what asks a question at most once a second.
func Probe(question func(context.Context) error) func(context.Context) error {
	return (&probe{question: question, now: time.Now}).ask
}

// Room returns what refuses while less than reserve bytes are free.
func Room(reserve int64, free func(string) (int64, error), log *slog.Logger) func() error {
	return (&room{dirs: []string{"database", "values"}, reserve: reserve, free: free, now: time.Now, log: log}).check
}

// Replicated is the store as replicas see it.
func (n *Node) Replicated() replication.Store { return replicated{n.store, n.room} }

// SetFree says how many bytes are free on the node's disks.
func (n *Node) SetFree(bytes int64) {
	n.room.mu.Lock()
	defer n.room.mu.Unlock()
	n.room.free = func(string) (int64, error) { return bytes, nil }
	n.room.until = time.Time{}
}

// ServeHTTP serves as the node's listeners do.
func ServeHTTP(ctx context.Context, l net.Listener, h http.Handler, certificates *tls.Config) error {
	return newHTTPSide(nil, nil, slog.New(slog.DiscardHandler)).serve(ctx, l, h, certificates)
}

// Connected returns with whom the entrance of a Space is connected, or the node's own front.
func (n *Node) Connected(space *tinycloud.SpaceID) []peer.ID {
	f := n.front.Load()
	if space != nil {
		f = n.opened(*space).front
	}
	return f.Host().Network().Peers()
}

// EntranceID is the name of the front where a Space is reached.
func (n *Node) EntranceID(space tinycloud.SpaceID) peer.ID { return n.entranceID(space) }

// Fronts are the nodes of the other hosts of a Space that are known here.
func (n *Node) Fronts(ctx context.Context, space tinycloud.SpaceID) ([]peer.AddrInfo, error) {
	return n.spaces.frontsOf(ctx, space)
}

// AskOrder is the order in which a named node is asked about joining Spaces; after is called with each.
func AskOrder(joining []tinycloud.SpaceID, after func(tinycloud.SpaceID) []tinycloud.SpaceID) (order []tinycloud.SpaceID) {
	x := &askedNode{answers: map[tinycloud.SpaceID]*reply{}, served: map[tinycloud.Principal]int{}}
	for {
		space, ok, _ := x.pick(time.Now(), joining, true)
		if !ok {
			return order
		}
		x.served[space.Owner()]++
		x.answers[space] = &reply{busy: true}
		order = append(order, space)
		joining = append(joining, after(space)...)
	}
}

// AlertsOutOfTime looks for alerts when the time for that is over.
func (n *Node) AlertsOutOfTime() ([]AlertView, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errAlertsTime)
	return n.findAlerts(ctx)
}

// WhileLooking calls f while somebody looks for alerts.
func (n *Node) WhileLooking(f func()) {
	n.alerts.turn.Lock()
	defer n.alerts.turn.Unlock()
	f()
}
