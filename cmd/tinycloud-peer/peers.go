package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type peersCmd struct {
	Space tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	listing
}

// Help explains what is shown.
func (*peersCmd) Help() string {
	return "Hosts are self; synced, all it has is here; connected; or away. Joins are addresses the Space was told of: waiting, asked, " +
		"connected, reached elsewhere (its host is connected, by another address), away, none (that node has no part in the Space), " +
		"unreachable, refused or invalid. \"unhost\" takes hosts as they are shown here."
}

// Run lists the hosts of a Space and the addresses it is joined through.
func (c *peersCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	v, err := client.Space(ctx, c.Space)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, v.Hosts)
	}
	if c.Wide {
		return c.printWide(p, v)
	}
	w := table(p.out, "STATE\tSEEN\tHOST\tNOTE")
	for _, h := range v.Hosts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", hostState(h), since(h.LastSeen), c.named(h), hostNote(h))
	}
	if err := w.Flush(); err != nil || len(v.Joins) == 0 {
		return err
	}
	fmt.Fprintln(p.out)
	w = table(p.out, "JOIN\tTRIED\tADDRESS")
	for _, j := range v.Joins {
		fmt.Fprintf(w, "%s\t%s\t%s\n", j.State, since(j.LastTry), shortAddr(j.Addr))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, j := range v.Joins {
		if j.LastError != "" {
			fmt.Fprintf(p.out, "%s: %s\n", shortAddr(j.Addr), j.LastError)
		}
	}
	return nil
}

func (c *peersCmd) printWide(p *program, v node.SpaceView) error {
	w := table(p.out, "STATE\tSEEN\tPEER\tDID\tALIAS\tNOTE")
	for _, h := range v.Hosts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", hostState(h), since(h.LastSeen), h.PeerID, h.DID, h.Alias, hostNote(h))
	}
	for _, j := range v.Joins {
		fmt.Fprintf(w, "join %s\t%s\t%s\t\t\t%s\n", j.State, since(j.LastTry), j.Addr, j.LastError)
	}
	return w.Flush()
}

// shortAddr cuts the peers of a multiaddr.
func shortAddr(addr string) string {
	parts := strings.Split(addr, "/")
	for i, part := range parts {
		if i > 0 && parts[i-1] == "p2p" {
			parts[i] = short(part, 4, 6)
		}
	}
	return strings.Join(parts, "/")
}

func hostState(h node.HostView) string {
	switch {
	case h.Self:
		return "self"
	case h.Synced:
		return "synced"
	case h.Connected:
		return "connected"
	}
	return "away"
}

func hostNote(h node.HostView) string {
	var notes []string
	if h.Forked {
		note := "restored or forked"
		for _, f := range h.Forks {
			note += fmt.Sprintf(" %d:%.8s/%.8s", f.N, f.Digests[0], f.Digests[1])
		}
		notes = append(notes, note)
	}
	if by, off := h.ClockOff(); off {
		notes = append(notes, "its clock is "+offBy(by))
	}
	if h.Older {
		notes = append(notes, "older version")
	}
	return strings.Join(notes, ", ")
}

// offBy spells the difference of a clock.
func offBy(by time.Duration) string {
	if by < 0 {
		return span(by) + " behind"
	}
	return span(by) + " ahead"
}

// hostNamed returns the DID of a host that is named by it or by its peer; or of the one host that has an alias, or that tables
// show so: a host can choose a key that looks like another's there.
func hostNamed(hosts []node.HostView, name string) (did string, ok bool) {
	for _, h := range hosts {
		switch name {
		case h.DID, h.PeerID:
			return h.DID, true
		case "":
		case (listing{}).host(h.DID), (listing{}).peer(h.PeerID), h.Alias:
			if did != "" {
				return "", false
			}
			did = h.DID
		}
	}
	return did, did != ""
}
