package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// Info is the answer to GET /admin/node.
type Info struct {
	NodeID  string   `json:"nodeId"` // did:key
	PeerID  string   `json:"peerId"`
	Addrs   []string `json:"addrs"` // multiaddrs ending in /p2p/<peerId>
	Version string   `json:"version"`

	URL           string     `json:"url"`           // of the HTTP API
	Started       time.Time  `json:"started"`       // this process
	Trouble       []string   `json:"trouble"`       // why it can't serve, a sentence each
	Reachability  string     `json:"reachability"`  // public, private, or unknown: whether others found its addresses to be reached
	Connections   int        `json:"connections"`   // with other nodes
	Spaces        int        `json:"spaces"`        // that are hosted
	Replicates    bool       `json:"replicates"`    // false: only other processes of the same database do
	Shards        int        `json:"shards"`        // of 64, that this process replicates; the others are other processes'
	Backup        *time.Time `json:"backup"`        // when the last one was made by the verb; null: none is known
	SampleSeconds float64    `json:"sampleSeconds"` // between samples of GET /admin/history
}

// SpaceView is what GET /admin/spaces answers of each Space. Arrays are never null.
type SpaceView struct {
	Space     tinycloud.SpaceID `json:"space"`
	DID       string            `json:"did"`      // of this node in the Space
	PeerID    string            `json:"peerId"`   // the same key
	Addrs     []string          `json:"addrs"`    // what others join
	State     string            `json:"state"`    // hosted, joining, synced; imported: its owner has not made this node a host
	Standing  capstore.Standing `json:"standing"` // of this node: host, removed, expired, none
	Activity  string            `json:"activity"` // open, resting, asleep; alone: no other host was met; elsewhere: another process replicates it
	Opens     *time.Time        `json:"opens"`    // when joining ends if nothing of another host is here; null: not by time
	Hosts     []HostView        `json:"hosts"`
	Heads     []string          `json:"heads"` // CIDs of epochs
	Epochs    int64             `json:"epochs"`
	Void      int64             `json:"void"`
	Parked    int64             `json:"parked"`
	Pending   int64             `json:"pending"` // operations that only a newer release can read
	Events    int64             `json:"events"`
	Keys      int64             `json:"keys"`
	Wants     int64             `json:"wants"`  // values that are not here yet
	Policy    capstore.Policy   `json:"policy"` // of values: eager, lazy, all
	Bytes     int64             `json:"bytes"`
	Limit     *int64            `json:"limit"`     // of bytes; null: none
	OverLimit bool              `json:"overLimit"` // writes are refused
	History   int64             `json:"history"`   // bytes
	Paused    []string          `json:"paused"`    // what of other hosts is not taken, and why, a sentence each
	Rules     uint64            `json:"rules"`     // by which this host judges and orders; 0 from releases that don't tell
	StateHash string            `json:"stateHash"` // to be compared with that of a host of the same rules only
	Conflicts int64             `json:"conflicts"` // writes that lost against others which did not know of them
	Differing int               `json:"differing"` // databases of which another host made other content of the same writes
	Joins     []JoinView        `json:"joins"`
	Expires   *time.Time        `json:"expires"` // of this node's host delegation; null: never
	Written   *time.Time        `json:"written"` // when the newest write was made; null: never
	CatchUp   *CatchUpView      `json:"catchup"` // null: nothing is being caught up

	Networks []NetworkView `json:"networks"` // of the owner, in his Space of secrets; null in other Spaces
}

// CatchUpView is how far a Space is that is being caught up.
type CatchUpView struct {
	Entries   int64   `json:"entries"`    // log entries that came
	Total     int64   `json:"total"`      // with those to come
	PerSecond float64 `json:"perSecond"`  // of the last seconds
	ETA       int64   `json:"etaSeconds"` // 0: not known, or none
}

// HostView is a host of a Space.
type HostView struct {
	DID       string     `json:"did"`
	PeerID    string     `json:"peerId"`
	Alias     string     `json:"alias"` // the operator's name of it, or of its node; "": none
	Node      string     `json:"node"`  // peer id of its node, if it was connected since this process began; else ""
	Self      bool       `json:"self"`
	Connected bool       `json:"connected"`
	Synced    bool       `json:"synced"`
	LastSeen  *time.Time `json:"lastSeen"` // null: never
	SyncedAt  *time.Time `json:"syncedAt"` // when all it had was here last; null: not since the Space's peer opened
	Path      string     `json:"path"`     // how it is connected: direct, relayed, or "" when it is not
	Addr      string     `json:"addr"`     // of its node, by which it is connected
	RTTMs     int64      `json:"rttMs"`    // of the last question to it and its answer; 0: not known
	Forked    bool       `json:"forked"`   // restored from a backup, or lying
	Forks     []ForkView `json:"forks"`    // the proofs
	SkewMs    int64      `json:"skewMs"`   // its clock minus this one, when they last spoke; 0: not known
	Rules     uint64     `json:"rules"`    // by which it judges, as it last told; 0: it did not tell, or was never met
	Older     bool       `json:"older"`    // its rules are older than this host's, so that writes at the same time may end in another order there

	Services map[string]uint64 `json:"services"` // with their versions, as it last told
	Behind   []string          `json:"behind"`   // of these, those of an older version than this host's: all write by that one
}

// ClockOff tells whose clock is too far from this node's: such hosts' writes may count late or not at all.
func (h HostView) ClockOff() (by time.Duration, off bool) {
	by = time.Duration(h.SkewMs) * time.Millisecond
	return by, by.Abs() > replication.MaxSkew
}

// ForkView names two entries of one number that a host signed: hex digests.
type ForkView struct {
	N       uint64    `json:"n"`
	Digests [2]string `json:"digests"`
}

// JoinView is an address a Space was told to join through, or of a node that was named and is asked about it.
type JoinView struct {
	Addr      string     `json:"addr"`
	State     string     `json:"state"`   // waiting, asked, connected, reached elsewhere, away, none, refused, unreachable, invalid
	LastTry   *time.Time `json:"lastTry"` // null: not yet
	LastError string     `json:"lastError"`
	Named     bool       `json:"named"` // it is of a node that is asked about all Spaces, by pairing or in the configuration
}

func (n *Node) sortedSpaces() []tinycloud.SpaceID { return sorted(n.store.Spaces()) }

func sorted(all []tinycloud.SpaceID) []tinycloud.SpaceID {
	slices.SortFunc(all, func(a, b tinycloud.SpaceID) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// view collects what is known of a Space.
func (n *Node) view(ctx context.Context, space tinycloud.SpaceID) (SpaceView, error) {
	return n.viewBy(ctx, space, n.store.Status)
}

// brief is view without the hash of the state, which takes as long as the Space has keys.
func (n *Node) brief(ctx context.Context, space tinycloud.SpaceID) (SpaceView, error) {
	return n.viewBy(ctx, space, n.store.Glance)
}

func (n *Node) viewBy(ctx context.Context, space tinycloud.SpaceID, status func(context.Context, tinycloud.SpaceID) (capstore.Status, error)) (SpaceView, error) {
	st, err := status(ctx, space)
	if err != nil {
		return SpaceView{}, err
	}
	hosts, err := n.store.Hosts(ctx, space)
	if err != nil {
		return SpaceView{}, err
	}
	joins, err := n.store.Joins(ctx, space)
	if err != nil {
		return SpaceView{}, err
	}
	policy, _, err := n.store.Policy(ctx, space)
	if err != nil {
		return SpaceView{}, err
	}
	conflicts, err := n.keyValue.ConflictCount(ctx, space)
	if err != nil {
		return SpaceView{}, err
	}
	room, err := n.store.Room(ctx, space)
	if err != nil {
		return SpaceView{}, err
	}
	n.entrance(ctx, space)
	v := SpaceView{
		Space: space, DID: n.hostDID(space), PeerID: n.spacePeer(space).String(),
		Addrs: p2p.AddrTexts(n.spaceAddrs(space)), State: st.State, Standing: st.Standing, Activity: n.spaces.activity(space), Opens: stamp(st.Opens), Hosts: []HostView{}, Heads: []string{},
		Epochs: st.Epochs, Void: st.Void, Parked: st.Parked, Pending: st.Pending, Events: st.Events, Keys: st.Keys, Wants: st.Wants, Policy: policy, Bytes: st.Bytes, History: room.History, Paused: n.paused(room),
		Rules: capstore.Rules, StateHash: st.StateHash, Conflicts: conflicts, Joins: []JoinView{}, Expires: stamp(st.Expires), Written: stamp(st.Written),
	}
	if d := n.databases(); d != nil {
		v.Differing = d.Differing(space)
	}
	if room.Limited {
		v.Limit, v.OverLimit = &room.Limit, room.Used() >= room.Limit
	}
	for _, h := range st.Heads {
		v.Heads = append(v.Heads, h.EpochID())
	}
	if space.IsSecrets() {
		if v.Networks, err = n.networkViews(ctx, space.Owner()); err != nil {
			return SpaceView{}, err
		}
	}
	seen := n.spaces.status(space)
	v.Hosts = hostViews(hosts, seen.Peers, st.State)
	n.spaces.paths(space, v.Hosts)
	if err := n.nameHosts(ctx, space, v.Hosts); err != nil {
		return SpaceView{}, err
	}
	v.Joins = append(v.Joins, n.spaces.asker.joinViews(space, joins)...)
	for i := range v.Joins {
		v.Joins[i].State = n.reached(space, v.Joins[i], v.Hosts)
	}
	if c := seen.CatchUp; c != nil {
		v.CatchUp = &CatchUpView{c.Entries, c.Total, c.PerSecond, int64(math.Ceil(c.Left.Seconds()))}
	}
	return v, nil
}

// paused says what of other hosts is not taken of a Space, and why.
func (n *Node) paused(r capstore.Room) []string {
	why := []string{}
	if n.room.check() != nil {
		why = append(why, "history and values: less is free on this node's disk than storage.reserve")
	}
	if r.NoValues() || r.Short {
		why = append(why, fmt.Sprintf("values: %d bytes count here in the limit of %d bytes, and those to come do not fit", r.Used(), r.Limit))
	}
	if r.NoHistory() {
		why = append(why, fmt.Sprintf("history: it has %d bytes of at most %d bytes", r.History, r.MostHistory()))
	}
	return why
}

// SameState reports whether two hosts that have the same entries are in the same state. Hosts of different rules may
// differ, so of these it says nothing but yes.
func (v SpaceView) SameState(other SpaceView) bool {
	return v.Rules != other.Rules || v.StateHash == other.StateHash
}

// hostViews joins what is stored of the hosts with what the replica, if one runs, sees of them. This node
// comes first.
func hostViews(known []hostlog.Host, peers []replication.PeerStatus, state string) []HostView {
	live := make(map[hostlog.Key]replication.PeerStatus, len(peers))
	for _, p := range peers {
		live[p.Host] = p
	}
	views := make([]HostView, 0, len(known))
	slices.SortFunc(known, func(a, b hostlog.Host) int {
		if a.Self != b.Self {
			if a.Self {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Host.String(), b.Host.String())
	})
	for _, k := range known {
		v := HostView{DID: k.Host.String(), Self: k.Self, Forked: k.Forked, Forks: []ForkView{}, LastSeen: stamp(k.Seen), Rules: k.Hello.Rules, Older: k.OlderThan(capstore.Rules)}
		v.Services, v.Behind = servicesOf(k.Hello, known)
		for _, f := range k.Forks {
			v.Forks = append(v.Forks, ForkView{f.N, [2]string{hex.EncodeToString(f.Digests[0][:]), hex.EncodeToString(f.Digests[1][:])}})
		}
		if id, err := p2p.PeerIDFromEd25519(k.Host[:]); err == nil {
			v.PeerID = id.String()
		}
		if k.Self {
			v.Connected, v.Synced, v.LastSeen = true, state != capstore.StateJoining, stamp(time.Now())
		}
		if p, ok := live[k.Host]; ok {
			v.Connected, v.Synced, v.SkewMs = p.Connected, p.Connected && p.Synced, p.Skew.Milliseconds()
			v.SyncedAt, v.RTTMs = stamp(p.Equal), max(p.Trip.Milliseconds(), min(1, int64(p.Trip)))
			if p.LastSeen.After(k.Seen) {
				v.LastSeen = stamp(p.LastSeen)
			}
		}
		views = append(views, v)
	}
	return views
}

// How a host is connected.
const (
	PathDirect  = "direct"
	PathRelayed = "relayed" // over another node that both reach
)

// paths says how the hosts of a Space are connected.
func (s *spaces) paths(space tinycloud.SpaceID, hosts []HostView) {
	a := s.get(space)
	if a == nil {
		return
	}
	for i := range hosts {
		h := &hosts[i]
		id, err := peer.Decode(h.PeerID)
		if err != nil || h.Self || !h.Connected {
			continue
		}
		if addr, relayed, ok := a.peer.Route(id); ok {
			h.Path, h.Addr = PathDirect, addr.String()
			if relayed {
				h.Path = PathRelayed
			}
		}
	}
}

// servicesOf are the services of a host, and those that it has in an older version than this host.
func servicesOf(h hostlog.Hello, all []hostlog.Host) (versions map[string]uint64, behind []string) {
	versions, behind = map[string]uint64{}, []string{}
	for _, s := range h.Services {
		versions[s.Name] = s.Version
		if own, ok := all[0].Hello.Version(s.Name); ok && all[0].Self && s.Version < own {
			behind = append(behind, s.Name)
		}
	}
	return versions, behind
}

// stamp returns a time for JSON, nil for none.
func stamp(t time.Time) *time.Time {
	if t.IsZero() || t.UnixMilli() <= 0 {
		return nil
	}
	t = t.UTC().Truncate(time.Millisecond)
	return &t
}
