package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

type pairCmd struct {
	Node []string `arg:"" name:"multiaddr-or-invite" help:"Address of a node, ending in /p2p/<its peer ID>, or what its \"invite\" printed."`
	answer
}

// Help tells what pairing means.
func (c *pairCmd) Help() string {
	return "This node asks a paired one about every Space that comes here, so that all Spaces of an owner follow by themselves. " +
		"With an invite the two ask each other. Pairing gives no rights: the owner hosts a Space on both nodes. A node that is asked can test " +
		"guesses of Space ids: pair only nodes you trust with that."
}

// Run pairs this node with another one.
func (c *pairCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	q := node.PairRequest{Addr: strings.TrimSpace(strings.Join(c.Node, ""))}
	if strings.HasPrefix(q.Addr, replication.InvitePrefix) {
		q = node.PairRequest{Invite: q.Addr}
	}
	v, err := client.Pair(ctx, q)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, v)
	}
	both := "this node asks it; its operator has to pair this node, or send an invite, for it to ask back"
	if v.Back {
		both = "the two ask each other"
	}
	if v.Silent != nil {
		fmt.Fprintln(p.err, "tinycloud-peer: it is out of reach now, and tried again")
	}
	_, err = fmt.Fprintf(p.out, "paired %s: %s\n", sentence(v), both)
	return err
}

type unpairCmd struct {
	Peer string `arg:"" help:"Peer ID of the node, its alias, or as \"nodes\" lists it."`
	answer
}

// Run ends a pairing. Spaces that both nodes host go on being replicated.
func (c *unpairCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	list, err := client.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, v := range list {
		if c.Peer == (listing{}).peer(v.Peer) || c.Peer == v.Alias {
			c.Peer = v.Peer
		}
	}
	v, err := client.Unpair(ctx, c.Peer)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, v)
	}
	then := "it is asked no more"
	if v.Source == "bootstrap" {
		then = "it is asked all the same, p2p.bootstrap names it"
	}
	_, err = fmt.Fprintf(p.out, "unpaired %s: %s; Spaces that both host go on being replicated\n", sentence(v), then)
	return err
}

type inviteCmd struct {
	Expires time.Duration `default:"24h" help:"How long it may be used, 24h at most."`
	answer
}

// Run prints an invite on one line. Whoever has it may use it, once.
func (c *inviteCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	v, err := client.Invite(ctx, node.InviteRequest{Expires: c.Expires.String()})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, v)
	}
	fmt.Fprintf(p.err, "For one node, until %s. There: tinycloud-peer pair INVITE\n", v.Expires.Local().Format(time.DateTime))
	_, err = fmt.Fprintln(p.out, v.Invite)
	return err
}

type nodesCmd struct{ listing }

// Run lists the nodes that are asked about every Space.
func (c *nodesCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	list, err := client.Nodes(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, list)
	}
	if c.Wide {
		return c.printWide(p, list)
	}
	w := table(p.out, "NODE\tFROM\tASKS BACK\tANSWERS\tHEARD")
	for _, v := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.node(v), v.Source, yes(v.Back), answers(v), since(v.Heard))
	}
	return w.Flush()
}

func (c *nodesCmd) printWide(p *program, list []node.NodeView) error {
	w := table(p.out, "NODE\tALIAS\tFROM\tSINCE\tASKS BACK\tANSWERS\tHEARD\tADDRESSES")
	for _, v := range list {
		paired := "-"
		if v.Since != nil {
			paired = v.Since.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Peer, v.Alias, v.Source, paired, yes(v.Back), answers(v), since(v.Heard), strings.Join(v.Addrs, " "))
	}
	return w.Flush()
}

// node is a node as tables show it, by its alias if it has one.
func (l listing) node(v node.NodeView) string {
	if v.Alias != "" {
		return v.Alias
	}
	return l.peer(v.Peer)
}

// sentence is a node as sentences about it alone name it: with its alias, if it has one, and whole.
func sentence(v node.NodeView) string {
	if v.Alias != "" {
		return v.Alias + ", " + v.Peer
	}
	return v.Peer
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// answers says how a node does when it is asked.
func answers(v node.NodeView) string {
	switch {
	case v.Silent != nil:
		return "not since " + v.Silent.Local().Format(time.DateTime)
	case v.Heard == nil:
		return "not asked yet"
	}
	return "yes"
}
