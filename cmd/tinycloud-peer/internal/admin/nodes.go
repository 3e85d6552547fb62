package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// Nodes lists the nodes that are asked about every Space.
func (c *Client) Nodes(ctx context.Context) (list []node.NodeView, err error) {
	return list, c.get(ctx, "/admin/nodes", &list)
}

// Pair pairs the node with another one.
func (c *Client) Pair(ctx context.Context, q node.PairRequest) (v node.NodeView, err error) {
	return v, c.send(ctx, http.MethodPost, "/admin/nodes", q, &v)
}

// Unpair ends a pairing.
func (c *Client) Unpair(ctx context.Context, peer string) (v node.NodeView, err error) {
	return v, c.send(ctx, http.MethodDelete, "/admin/nodes/"+url.PathEscape(peer), nil, &v)
}

// Invite makes an invite.
func (c *Client) Invite(ctx context.Context, q node.InviteRequest) (v node.InviteView, err error) {
	return v, c.send(ctx, http.MethodPost, "/admin/invites", q, &v)
}

func (c *Client) send(ctx context.Context, method, path string, q, out any) error {
	var body []byte
	if q != nil {
		var err error
		if body, err = json.Marshal(q); err != nil {
			return err
		}
	}
	status, answer, err := c.do(ctx, method, path, "", body)
	if err != nil {
		return err
	}
	return c.decode(status, answer, out)
}
