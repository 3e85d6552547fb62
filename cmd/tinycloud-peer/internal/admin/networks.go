package admin

import (
	"context"
	"net/http"
	"net/url"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

func networkPath(id tinycloud.NetworkID) string {
	return "/admin/networks/" + url.PathEscape(id.String())
}

// Networks lists the encryption networks that are known.
func (c *Client) Networks(ctx context.Context) (list []node.NetworkView, err error) {
	return list, c.get(ctx, "/admin/networks", &list)
}

// Network returns one.
func (c *Client) Network(ctx context.Context, id tinycloud.NetworkID) (v node.NetworkView, err error) {
	return v, c.get(ctx, networkPath(id), &v)
}

// ShareNetwork has the keys of a network's owner go to a node, or not.
func (c *Client) ShareNetwork(ctx context.Context, id tinycloud.NetworkID, to string, yes bool) (v node.NetworkView, err error) {
	method := http.MethodPut
	if !yes {
		method = http.MethodDelete
	}
	return v, c.send(ctx, method, networkPath(id)+"/nodes/"+url.PathEscape(to), nil, &v)
}

// Rotation returns the text by which a network's owner has its key rotated.
func (c *Client) Rotation(ctx context.Context, id tinycloud.NetworkID) (string, error) {
	var q node.Rotation
	return q.SIWE, c.get(ctx, networkPath(id)+"/rotation", &q)
}

// Rotate has it rotated by a header of the signed text.
func (c *Client) Rotate(ctx context.Context, id tinycloud.NetworkID, header string) (v node.NetworkView, err error) {
	return v, c.send(ctx, http.MethodPost, networkPath(id)+"/rotation", node.Rotation{Header: header}, &v)
}
