package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type peersCmd struct {
	Space tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	JSON  bool              `name:"json" help:"Print JSON."`
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
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STATE\tSEEN\tPEER\tDID\tNOTE")
	for _, h := range v.Hosts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", hostState(h), since(h.LastSeen), h.PeerID, h.DID, hostNote(h))
	}
	for _, j := range v.Joins {
		fmt.Fprintf(w, "join %s\t%s\t%s\t\t%s\n", j.State, since(j.LastTry), j.Addr, j.LastError)
	}
	return w.Flush()
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
		return (-by).Round(time.Second).String() + " behind"
	}
	return by.Round(time.Second).String() + " ahead"
}

// since tells how long ago something was.
func since(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return time.Since(*t).Round(time.Second).String()
}
