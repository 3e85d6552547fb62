package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

// noLimit is the word that clears what was set for a Space.
const noLimit = "none"

type quotaCmd struct {
	Space *tinycloud.SpaceID `arg:"" optional:"" help:"Space id, tinycloud:…:name; without one all that are set are listed."`
	Limit string             `arg:"" optional:"" help:"Bytes it may hold, such as 5GiB, or none to clear what was set."`
	listing
}

// Run shows or changes what a Space may hold.
func (c *quotaCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	if c.Space == nil {
		return c.list(ctx, p, client)
	}
	v, err := c.view(ctx, client)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, v)
	}
	_, err = fmt.Fprintf(p.out, "set    %s\nlimit  %s\nused   %s\nspace  %s\n",
		sizeOr(v.Override, noLimit), sizeOr(v.Effective, noLimit), sizeOr(v.Usage, "not hosted"), v.Space)
	return err
}

// view makes the change that is asked for and returns what holds then.
func (c *quotaCmd) view(ctx context.Context, client *admin.Client) (node.QuotaView, error) {
	switch c.Limit {
	case "":
		return client.Quota(ctx, *c.Space)
	case noLimit:
		return client.ClearQuota(ctx, *c.Space)
	}
	limit, err := config.ParseByteSize(c.Limit)
	if err != nil {
		return node.QuotaView{}, err
	}
	return client.SetQuota(ctx, *c.Space, limit.Int64())
}

func (c *quotaCmd) list(ctx context.Context, p *program, client *admin.Client) error {
	q, err := client.Quotas(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, q)
	}
	w := table(p.out, "LIMIT\tSPACE")
	fmt.Fprintf(w, "%s\t(default)\n", sizeOr(q.Default, noLimit))
	for _, space := range slices.SortedFunc(maps.Keys(q.Overrides), func(a, b tinycloud.SpaceID) int {
		return strings.Compare(a.String(), b.String())
	}) {
		fmt.Fprintf(w, "%s\t%s\n", size(q.Overrides[space]), c.space(space))
	}
	return w.Flush()
}

type usageCmd struct {
	listing
}

// Run lists how much each Space holds.
func (c *usageCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	u, err := client.Usage(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, u)
	}
	w := table(p.out, "SIZE\tSPACE")
	for _, s := range u.Spaces {
		fmt.Fprintf(w, "%s\t%s\n", size(s.Bytes), c.space(s.Space))
	}
	return w.Flush()
}
