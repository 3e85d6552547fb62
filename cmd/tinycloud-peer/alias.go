package main

import (
	"context"
	"fmt"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type aliasCmd struct {
	Name   string `arg:"" optional:"" help:"1 to 32 letters, digits, and . _ -"`
	ID     string `arg:"" optional:"" name:"id" help:"Peer ID of a node, DID or peer ID of a host, or as \"nodes\" and \"peers\" list it."`
	Remove bool   `help:"Forget the name."`
	listing
}

// Help tells what is named.
func (*aliasCmd) Help() string {
	return "Tables, sentences and the web page show names in place of ids, and verbs take them. The name of a node is that of its hosts in " +
		"all Spaces, once they were connected. Names are this node's alone: other nodes are not told."
}

// Run lists the names, shows one, gives or forgets one.
func (c *aliasCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	switch {
	case c.Remove && (c.Name == "" || c.ID != ""):
		return fmt.Errorf("--remove: expected a name alone: %w", tinycloud.ErrInvalid)
	case c.Name == "":
		list, err := client.Aliases(ctx)
		if err != nil {
			return err
		}
		return c.print(p, list)
	}
	v, err := c.one(ctx, client)
	switch {
	case err != nil:
		return err
	case c.JSON:
		return printJSON(p.out, v)
	case c.Remove:
		fmt.Fprintf(p.out, "%s is named %s no more\n", v.PeerID, v.Name)
		return nil
	}
	return c.print(p, []node.AliasView{v})
}

// one does what is asked about one name.
func (c *aliasCmd) one(ctx context.Context, client *admin.Client) (v node.AliasView, err error) {
	if c.Remove {
		return client.RemoveAlias(ctx, c.Name)
	}
	if c.ID != "" {
		id, err := whole(ctx, client, c.ID)
		if err != nil {
			return v, err
		}
		return client.SetAlias(ctx, c.Name, id)
	}
	list, err := client.Aliases(ctx)
	for _, v := range list {
		if v.Name == c.Name {
			return v, err
		}
	}
	if err == nil {
		err = fmt.Errorf("there is no alias %q: %w", c.Name, tinycloud.ErrNotFound)
	}
	return v, err
}

func (c *aliasCmd) print(p *program, list []node.AliasView) error {
	if c.JSON {
		return printJSON(p.out, list)
	}
	if c.Wide {
		w := table(p.out, "NAME\tPEER\tDID")
		for _, v := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\n", v.Name, v.PeerID, v.DID)
		}
		return w.Flush()
	}
	w := table(p.out, "NAME\tPEER\tHOST")
	for _, v := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", v.Name, c.peer(v.PeerID), c.host(v.DID))
	}
	return w.Flush()
}

// whole returns the id of a node or a host that is named as tables show it, and other ids as they are.
func whole(ctx context.Context, client *admin.Client, id string) (string, error) {
	if !strings.Contains(id, "…") {
		return id, nil
	}
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return "", err
	}
	spaces, err := client.Spaces(ctx)
	if err != nil {
		return "", err
	}
	found := map[string]bool{}
	for _, v := range nodes {
		if (listing{}).peer(v.Peer) == id {
			found[v.Peer] = true
		}
	}
	for _, v := range spaces {
		for _, h := range v.Hosts {
			if (listing{}).peer(h.PeerID) == id || (listing{}).host(h.DID) == id {
				found[h.PeerID] = true
			}
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("id: %d nodes and hosts are shown as %s: %w", len(found), id, tinycloud.ErrInvalid)
	}
	for id = range found {
	}
	return id, nil
}

// aliased returns the peer id that a name stands for, and what is no name as it is.
func aliased(ctx context.Context, client *admin.Client, name string) (string, error) {
	list, err := client.Aliases(ctx)
	for _, v := range list {
		if v.Name == name {
			return v.PeerID, err
		}
	}
	return name, err
}
