package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type networksCmd struct {
	listing
}

// Run lists the encryption networks.
func (c *networksCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	list, err := client.Networks(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, list)
	}
	w := table(p.out, "STATE\tVERSION\tKEYS\tHOSTS\tNETWORK")
	for _, v := range list {
		hosts := 0
		for _, h := range v.Holders {
			if h.Hosting && h.Trusted {
				hosts++
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%d/%d\t%d\t%s\n", v.State, v.Version, v.Keys, v.Known, hosts, c.network(v.Network))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	warnNetworks(p.out, list)
	return nil
}

// warnNetworks says what an operator should do something about.
func warnNetworks(out io.Writer, list []node.NetworkView) {
	for _, v := range list {
		for _, a := range v.Alerts() {
			fmt.Fprintln(out, alertLine(a))
		}
	}
}

type networkCmd struct {
	Show   networkShowCmd   `cmd:"" help:"Show an encryption network: which hosts have its key."`
	Share  networkShareCmd  `cmd:"" help:"Have the keys of a network's owner go to a node that is not paired, or no more."`
	Rotate networkRotateCmd `cmd:"" help:"Print what a network's owner has to sign for a new version of its key, or complete it."`
}

// network is where the node is asked about a network that an argument names, whole or as tables show it.
func (p *program) network(ctx context.Context, text string) (client *admin.Client, datadir string, id tinycloud.NetworkID, err error) {
	if client, datadir, err = p.node(); err != nil {
		return client, datadir, id, err
	}
	if strings.Contains(text, "…") {
		list, err := client.Networks(ctx)
		if err == nil {
			text, err = networkNamed(list, text)
		}
		if err != nil {
			return client, datadir, id, err
		}
	}
	id, err = tinycloud.ParseNetworkID(text)
	return client, datadir, id, err
}

// networkNamed is the id of the one network that tables show as a text. Who makes a network can make its text that of another's.
func networkNamed(list []node.NetworkView, text string) (string, error) {
	var found []string
	for _, v := range list {
		if (listing{}).network(v.Network) == text {
			found = append(found, v.Network)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no encryption network is shown as %s: %w", text, tinycloud.ErrNotFound)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%s is one of %s: write it whole", text, strings.Join(found, ", "))
}

type networkShowCmd struct {
	Network string `arg:"" help:"Id of the network, urn:tinycloud:encryption:…:name."`
	listing
}

// Run shows a network.
func (c *networkShowCmd) Run(ctx context.Context, p *program) error {
	client, _, id, err := p.network(ctx, c.Network)
	if err != nil {
		return err
	}
	v, err := client.Network(ctx, id)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, v)
	}
	return c.printNetwork(ctx, p.out, client, v)
}

func (l listing) printNetwork(ctx context.Context, out io.Writer, client *admin.Client, v node.NetworkView) error {
	names := map[string]string{}
	if len(v.Approved) > 0 {
		list, err := client.Aliases(ctx)
		if err != nil {
			return err
		}
		for _, a := range list {
			names[a.DID] = a.Name + ", "
		}
	}
	fmt.Fprintf(out, "network  %s\nstate    %s\nversion  %d\nkeys     %d here, %d known\n\n", v.Network, v.State, v.Version, v.Keys, v.Known)
	w := table(out, "NODE\tTRUSTED\tHOSTING\tPEER\tHOST")
	for _, h := range v.Holders {
		name := l.host(h.Node)
		if h.Alias != "" {
			name = h.Alias
		}
		if h.Self {
			name += " (this)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, yes(h.Trusted), yes(h.Hosting), l.peer(h.PeerID), l.host(h.Host))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range v.Approved {
		fmt.Fprintf(out, "approved: %s%s\n", names[n], n)
	}
	warnNetworks(out, []node.NetworkView{v})
	return nil
}

type networkShareCmd struct {
	Network string `arg:"" help:"Id of a network of the owner."`
	Node    string `arg:"" help:"Peer ID, did:key or alias of the node. Its operator approves this node likewise."`
	Off     bool   `help:"No more. The node keeps what it has."`
	listing
}

// Help tells what sharing means.
func (c *networkShareCmd) Help() string {
	return "Paired nodes get the keys of owners whose secrets both host by themselves. A node that gets a key can read everything the " +
		"owner has encrypted: approve only those you trust with that."
}

// Run approves a node.
func (c *networkShareCmd) Run(ctx context.Context, p *program) error {
	client, _, id, err := p.network(ctx, c.Network)
	if err != nil {
		return err
	}
	if c.Node, err = aliased(ctx, client, c.Node); err != nil {
		return err
	}
	v, err := client.ShareNetwork(ctx, id, c.Node, !c.Off)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, v)
	}
	return c.printNetwork(ctx, p.out, client, v)
}

type networkRotateCmd struct {
	Network string `arg:"" help:"Id of the network."`
	ownerSigned
	answer
}

// Run prints the text that rotates a key, or completes it with its signature.
func (c *networkRotateCmd) Run(ctx context.Context, p *program) error {
	client, datadir, id, err := p.network(ctx, c.Network)
	if err != nil {
		return err
	}
	file := pendingFile(datadir, "rotate", id.String())
	asked, err := c.askUnlessSigned(p, file, func(string) (string, error) { return client.Rotation(ctx, id) })
	if err != nil || asked {
		return err
	}
	return c.complete(file, func(header string) error {
		v, err := client.Rotate(ctx, id, header)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.out, v)
		}
		fmt.Fprintf(p.out, "version %d of %s\n", v.Version, v.Network)
		return nil
	})
}
