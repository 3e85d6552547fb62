package admin

import (
	"context"
	"net/http"
	"net/url"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

func aliasPath(name string) string { return "/admin/aliases/" + url.PathEscape(name) }

// Aliases lists the names of nodes and hosts.
func (c *Client) Aliases(ctx context.Context) (list []node.AliasView, err error) {
	return list, c.get(ctx, "/admin/aliases", &list)
}

// SetAlias names a node or a host, by its peer id or DID.
func (c *Client) SetAlias(ctx context.Context, name, id string) (v node.AliasView, err error) {
	return v, c.put(ctx, aliasPath(name), node.AliasRequest{ID: id}, &v)
}

// RemoveAlias forgets a name.
func (c *Client) RemoveAlias(ctx context.Context, name string) (v node.AliasView, err error) {
	return v, c.send(ctx, http.MethodDelete, aliasPath(name), nil, &v)
}
