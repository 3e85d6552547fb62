package node

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

const (
	aliasesFor = 2 * time.Second // what was read holds: other processes of the database may name, too
	homesMost  = 10_000
)

// AliasView is the operator's own name of a node, or of a host.
type AliasView struct {
	Name   string `json:"name"`
	PeerID string `json:"peerId"`
	DID    string `json:"did"` // of the same key
}

// AliasRequest is the body of PUT /admin/aliases/{name}.
type AliasRequest struct {
	ID string `json:"id"` // peer id or DID
}

// aliases are the operator's names, and at which nodes hosts were seen: the name of a node is that of its hosts, too.
//
// Where a host is counts only by a connection with both, never by the addresses that it tells of itself: else whoever
// hosts a Space could have the name of another node.
type aliases struct {
	mu    sync.Mutex
	until time.Time          // guarded by mu
	names map[string]string  // by peer id; guarded by mu; a map that is there never changes
	homes map[string]peer.ID // nodes by the peer ids of hosts; guarded by mu
}

// forget has the next question read the names again.
func (a *aliases) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.until = time.Time{}
}

// home remembers the node of a host, unless that is "", and returns what is known of it.
func (a *aliases) home(host string, node peer.ID) peer.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	if node == "" {
		return a.homes[host]
	}
	if a.homes == nil || len(a.homes) >= homesMost {
		a.homes = map[string]peer.ID{}
	}
	a.homes[host] = node
	return node
}

// aliasNames are the names by peer ids.
func (n *Node) aliasNames(ctx context.Context) (map[string]string, error) {
	n.aliases.mu.Lock()
	defer n.aliases.mu.Unlock()
	if time.Now().Before(n.aliases.until) {
		return n.aliases.names, nil
	}
	all, err := n.store.Aliases(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(all))
	for _, a := range all {
		names[a.ID] = a.Name
	}
	n.aliases.names, n.aliases.until = names, time.Now().Add(aliasesFor)
	return names, nil
}

// nameHosts says at which nodes hosts of a Space are, and their names: their own ones, or those of their nodes.
func (n *Node) nameHosts(ctx context.Context, space tinycloud.SpaceID, hosts []HostView) error {
	names, err := n.aliasNames(ctx)
	if err != nil {
		return err
	}
	for i := range hosts {
		h := &hosts[i]
		if h.Self {
			h.Node = n.frontID()
		} else if home := n.aliases.home(h.PeerID, n.spaces.home(space, *h)); home != "" {
			h.Node = home.String()
		}
		h.Alias = names[h.PeerID]
		if h.Alias == "" {
			h.Alias = names[h.Node]
		}
	}
	return nil
}

// home is the node of a host that is connected, else "".
func (s *spaces) home(space tinycloud.SpaceID, h HostView) peer.ID {
	a := s.get(space)
	id, err := peer.Decode(h.PeerID)
	if a == nil || err != nil || !h.Connected {
		return ""
	}
	return a.peer.Home(id)
}

func aliasView(a capstore.Alias) (AliasView, error) {
	k, err := parseNode(a.ID)
	return AliasView{a.Name, a.ID, k.String()}, err
}

func (n *Node) adminAliases(r *http.Request) (int, any, error) {
	out := []AliasView{}
	all, err := n.store.Aliases(r.Context())
	if err != nil {
		return 0, nil, err
	}
	for _, a := range all {
		v, err := aliasView(a)
		if err != nil {
			return 0, nil, err
		}
		out = append(out, v)
	}
	return http.StatusOK, out, nil
}

func (n *Node) adminSetAlias(r *http.Request) (int, any, error) {
	var q AliasRequest
	if err := decodeBody(r, &q); err != nil {
		return 0, nil, err
	}
	k, err := parseNode(q.ID)
	if err != nil {
		return 0, nil, fmt.Errorf("id: %w", err)
	}
	id, err := p2p.PeerIDFromEd25519(k[:])
	if err != nil {
		return 0, nil, fmt.Errorf("id: %w", err)
	}
	a := capstore.Alias{Name: r.PathValue("name"), ID: id.String()}
	if err := n.store.SetAlias(r.Context(), a); err != nil {
		return 0, nil, err
	}
	n.renamed()
	v, err := aliasView(a)
	return http.StatusOK, v, err
}

func (n *Node) adminRemoveAlias(r *http.Request) (int, any, error) {
	name := r.PathValue("name")
	names, err := n.store.Aliases(r.Context())
	if err == nil {
		err = n.store.RemoveAlias(r.Context(), name)
	}
	if err != nil {
		return 0, nil, err
	}
	n.renamed()
	for _, a := range names {
		if a.Name == name {
			v, err := aliasView(a)
			return http.StatusOK, v, err
		}
	}
	return http.StatusOK, AliasView{Name: name}, nil // somebody named it meanwhile
}

// renamed has all that is shown have the new names.
func (n *Node) renamed() {
	n.aliases.forget()
	n.alerts.forget()
}
