package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
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

// Conflicts lists what of a Space lost against writes that did not know of it.
func (c *Client) Conflicts(ctx context.Context, space tinycloud.SpaceID) (all []node.ConflictView, err error) {
	for after := ""; ; {
		var page node.ConflictPage
		if err := c.get(ctx, spacePath(space)+"/conflicts?after="+url.QueryEscape(after), &page); err != nil {
			return nil, err
		}
		if all = append(all, page.Conflicts...); page.Next == "" {
			return all, nil
		}
		after = page.Next
	}
}

// ConflictValue returns the value of a conflict, by its CID; it takes as long as it takes.
func (c *Client) ConflictValue(ctx context.Context, space tinycloud.SpaceID, value string) (io.ReadCloser, error) {
	return c.stream(ctx, spacePath(space)+"/conflicts/"+url.PathEscape(value))
}
