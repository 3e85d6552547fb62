package main

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// conflict is a value that another one has displaced, as the admin API lists it.
type conflict struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Early bool   `json:"early"`
}

// conflicts asks a host for all conflicts of a user's Space.
func (g *group) conflicts(p *cluster.Peer, u *user, space string) []conflict {
	g.Helper()
	path := "/admin/spaces/" + url.PathEscape(u.phone.Space(space).String()) + "/conflicts"
	a := g.call(p, http.StatusOK, http.MethodGet, path, "Bearer "+p.Token, nil, nil)
	var page struct {
		Conflicts []conflict `json:"conflicts"`
	}
	g.must(json.Unmarshal([]byte(a.Body), &page))
	return page.Conflicts
}
