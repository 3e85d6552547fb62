package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// conflict is a value that another one has displaced, as the admin API lists it.
type conflict struct {
	Key   string `json:"key"`
	Value string `json:"value"` // CID
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

// noConflicts checks that hosts list none.
func (g *group) noConflicts(u *user, hosts ...*cluster.Peer) {
	g.Helper()
	for _, p := range hosts {
		for _, name := range u.names() {
			if list := g.conflicts(p, u, name); len(list) > 0 {
				g.Errorf("%s lists conflicts of %s: %+v", p.Name, name, list)
			}
		}
	}
}

// conflicting checks that a host lists just some values as conflicts of a key, and gives them out.
func (g *group) conflicting(p *cluster.Peer, u *user, space, key string, values ...string) {
	g.Helper()
	var want, got []string
	for _, v := range values {
		want = append(want, tinycloud.Sum([]byte(v)).EventID())
	}
	for _, c := range g.conflicts(p, u, space) {
		if c.Key == key {
			got = append(got, c.Value)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		g.Errorf("%s: conflicts of %s/%s are %v, want %v: %q", p.Name, space, key, got, want, values)
		return
	}
	if len(values) == 0 {
		return
	}
	dir := filepath.Join(g.TempDir(), "conflicts")
	g.verb(p, "conflicts", u.phone.Space(space).String(), "--export", dir)
	found := map[string]bool{}
	g.must(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found[string(b)] = true
		return err
	}))
	for _, v := range values {
		if !found[v] {
			g.Errorf("%s does not give out %q", p.Name, v)
		}
	}
}
