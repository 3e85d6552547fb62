package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type spacesCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

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
	return printSpaces(p.out, all)
}

// printSpaces prints a line for each Space.
func printSpaces(out io.Writer, all []node.SpaceView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STATE\tHOSTS\tEPOCHS\tVOID\tKEYS\tWANTS\tBYTES\tHASH/RULES\tSPACE")
	for _, v := range all {
		connected := 0
		for _, h := range v.Hosts {
			if h.Connected {
				connected++
			}
		}
		fmt.Fprintf(w, "%s\t%d/%d\t%d\t%d\t%d\t%d\t%d\t%.8s/%d\t%s\n",
			v.State, connected, len(v.Hosts), v.Epochs, v.Void, v.Keys, v.Wants, v.Bytes, v.StateHash, v.Rules, v.Space)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, v := range all {
		if v.Conflicts > 0 {
			fmt.Fprintf(out, "%d writes lost against others that did not know of them (tinycloud-peer conflicts): %s\n", v.Conflicts, v.Space)
		}
		warnNetworks(out, v.Networks)
		for _, why := range v.Paused {
			fmt.Fprintf(out, "replication is paused, %s: %s\n", why, v.Space)
		}
		if c := v.CatchUp; c != nil {
			fmt.Fprintf(out, "catching up: %d of %d entries, %.0f/s, %s left: %s\n", c.Entries, c.Total, c.PerSecond, eta(c.ETA), v.Space)
		}
		for _, h := range v.Hosts {
			if by, off := h.ClockOff(); off {
				fmt.Fprintf(out, "warning: the clock of %s is %s: %s\n", h.DID, offBy(by), v.Space)
			}
			for _, service := range h.Behind {
				fmt.Fprintf(out, "warning: %s has an older version of %s, by which all hosts write until it is upgraded: %s\n", h.DID, service, v.Space)
			}
			if h.Older {
				fmt.Fprintf(out, "warning: %s has an older version and may order writes in another way until it is upgraded: %s\n", h.DID, v.Space)
			}
		}
		if v.Expires != nil && time.Until(*v.Expires) < expiryNotice {
			fmt.Fprintf(out, "warning: this node's host delegation for %s expires %s: have the owner sign a new one (tinycloud-peer host)\n", v.Space, v.Expires.Format(time.RFC3339))
		}
	}
	return nil
}

// eta spells a number of seconds that is not known when it is 0.
func eta(seconds int64) string {
	if seconds == 0 {
		return "?"
	}
	return (time.Duration(seconds) * time.Second).String()
}

// expiryNotice is how long before the end of a host delegation its operator is told.
const expiryNotice = 7 * 24 * time.Hour
