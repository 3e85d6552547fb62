package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
)

// listing is how a verb shows what it has. Tables fit 80 columns unless they are wide.
type listing struct {
	Wide bool `help:"Whole ids and all columns, however long the lines are."`
	JSON bool `name:"json" help:"Print JSON."`
}

// answer is of verbs that tell one thing.
type answer struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func table(out io.Writer, head string) *tabwriter.Writer {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	return w
}

// short cuts the middle of what only its ends tell apart.
func short(s string, before, after int) string {
	if len(s) <= before+after+1 {
		return s
	}
	return s[:before] + "…" + s[len(s)-after:]
}

// space is a Space as tables show it: the end of its owner's DID, which differs, and its name.
func (l listing) space(id tinycloud.SpaceID) string {
	if l.Wide {
		return id.String()
	}
	owner := string(id.Owner())
	owner = owner[strings.LastIndexByte(owner, ':')+1:]
	return short(owner, 6, 4) + ":" + short(id.Name(), 12, 4)
}

// network is an encryption network as tables show it: the end of its owner's DID, and its name.
func (l listing) network(id string) string {
	if l.Wide {
		return id
	}
	parts := strings.Split(id, ":")
	return short(parts[max(0, len(parts)-2)], 6, 4) + ":" + short(parts[len(parts)-1], 12, 4)
}

// host is a DID of a host as tables show it.
func (l listing) host(did string) string {
	if l.Wide {
		return did
	}
	return short(strings.TrimPrefix(did, "did:key:"), 4, 8)
}

// named is a host as tables show it, by its alias if it has one.
func (l listing) named(h node.HostView) string {
	if h.Alias != "" {
		return h.Alias
	}
	return l.host(h.DID)
}

// peer is a libp2p peer as tables show it.
func (l listing) peer(id string) string {
	if l.Wide {
		return id
	}
	return short(id, 4, 8)
}

// size spells bytes for people; JSON has the number.
func size(n int64) string { return progress.Bytes(n) }

// sizeOr is size of a number that there may not be.
func sizeOr(n *int64, none string) string {
	if n == nil {
		return none
	}
	return size(*n)
}

// span spells a time that went by, or is to come, in its two largest units.
func span(d time.Duration) string {
	d = d.Abs().Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return units(d, time.Minute, "m", time.Second, "s")
	case d < 48*time.Hour:
		return units(d, time.Hour, "h", time.Minute, "m")
	}
	return units(d, 24*time.Hour, "d", time.Hour, "h")
}

func units(d, large time.Duration, l string, small time.Duration, s string) string {
	if rest := d % large / small; rest > 0 {
		return fmt.Sprintf("%d%s%d%s", d/large, l, rest, s)
	}
	return fmt.Sprintf("%d%s", d/large, l)
}

// since tells how long ago something was.
func since(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return span(time.Since(*t)) + " ago"
}
