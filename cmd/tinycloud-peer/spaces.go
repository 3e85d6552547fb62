package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type spacesCmd struct{ listing }

// legend explains the states of Spaces.
const legend = `States: hosted, no other host was met; synced, equal with the hosts that are connected; joining, waits for its history ` +
	`and answers 503; resting, nothing is new and its hosts agreed to rest; asleep, its hosts are away; over limit, writes are refused; ` +
	`imported, its owner has not made this node a host yet; removed, the owner revoked this host, and it answers 403; expired, its host ` +
	`delegation is over: it reads and does not write. HOSTS: connected, of all. TO FETCH: values that are not here yet.`

// Help explains what is shown.
func (*spacesCmd) Help() string { return legend }

// Run lists the Spaces.
func (c *spacesCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	all, err := client.Spaces(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, all)
	}
	return c.printSpaces(p.out, all)
}

// spaceState is how a Space is, in a word or two: what its operator should know goes before what is usual.
func spaceState(v node.SpaceView) string {
	switch {
	case v.State == capstore.StateImported:
		return capstore.StateImported
	case v.Standing == capstore.StandsRemoved, v.Standing == capstore.StandsExpired:
		return string(v.Standing)
	case v.Standing == capstore.StandsNone:
		return "no host"
	case v.State == capstore.StateJoining:
		return v.State
	case v.OverLimit:
		return "over limit"
	case v.Activity == node.ActivityResting, v.Activity == node.ActivityElsewhere, v.Activity == node.ActivityAsleep && v.State == capstore.StateSynced:
		return v.Activity
	}
	return v.State
}

// printSpaces prints a line for each Space, and a sentence for what needs one.
func (l listing) printSpaces(out io.Writer, all []node.SpaceView) error {
	head := "STATE\tHOSTS\tKEYS\tSIZE\tTO FETCH\tSPACE"
	if l.Wide {
		head = "STATE\tHOSTS\tEPOCHS\tVOID\tKEYS\tSIZE\tTO FETCH\tHASH/RULES\tSPACE"
	}
	w := table(out, head)
	for _, v := range all {
		connected := 0
		for _, h := range v.Hosts {
			if h.Connected {
				connected++
			}
		}
		fmt.Fprintf(w, "%s\t%d/%d\t", spaceState(v), connected, len(v.Hosts))
		if l.Wide {
			fmt.Fprintf(w, "%d\t%d\t", v.Epochs, v.Void)
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t", v.Keys, size(v.Bytes), v.Wants)
		if l.Wide {
			fmt.Fprintf(w, "%.8s/%d\t", v.StateHash, v.Rules)
		}
		fmt.Fprintln(w, l.space(v.Space))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, v := range all {
		if c := v.CatchUp; c != nil {
			fmt.Fprintf(out, "%s: catching up: %d of %d entries, %.0f/s, %s left\n", l.space(v.Space), c.Entries, c.Total, c.PerSecond, eta(c.ETA))
		}
		for _, a := range v.Alerts(time.Now(), l.host) {
			fmt.Fprintf(out, "%s: %s\n", l.space(v.Space), alertLine(a))
		}
	}
	return nil
}

// alertLine is an alert as verbs print it.
func alertLine(a node.AlertView) string {
	if a.Level == "info" {
		return a.Text
	}
	return a.Level + ": " + a.Text
}

// eta spells a number of seconds that is not known when it is 0.
func eta(seconds int64) string {
	if seconds == 0 {
		return "?"
	}
	return span(time.Duration(seconds) * time.Second)
}
