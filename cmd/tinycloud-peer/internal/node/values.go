package node

import (
	"context"
	"fmt"
	"net/http"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// PolicyView is which values this node fetches of a Space.
type PolicyView struct {
	Policy capstore.Policy `json:"policy"`
	Own    bool            `json:"own"` // else it is the node's
}

// PolicyRequest is the body of PUT /admin/spaces/{space}/policy.
type PolicyRequest struct {
	Policy *capstore.Policy `json:"policy"` // null: the node's
}

func (n *Node) adminPolicy(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	return n.viewPolicy(r.Context(), space)
}

func (n *Node) viewPolicy(ctx context.Context, space tinycloud.SpaceID) (int, any, error) {
	p, own, err := n.store.Policy(ctx, space)
	return http.StatusOK, PolicyView{p, own}, err
}

func (n *Node) adminSetPolicy(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	var q PolicyRequest
	if err := decodeBody(r, &q); err != nil {
		return 0, nil, err
	}
	var p capstore.Policy
	if q.Policy != nil {
		if p = *q.Policy; !p.Valid() {
			return 0, nil, fmt.Errorf("policy: %q, expected eager, lazy or all: %w", p, tinycloud.ErrInvalid)
		}
	}
	// A client that hangs up gets what it asked for all the same.
	if err := n.store.SetPolicy(context.WithoutCancel(r.Context()), space, p); err != nil {
		return 0, nil, err
	}
	return n.viewPolicy(r.Context(), space)
}
