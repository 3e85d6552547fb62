package node

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

const (
	alertsMost   = 200
	alertsSpaces = 1000            // that are looked at
	alertsFor    = 2 * time.Second // what was found holds, and longer where finding it takes long
	alertsPause  = 20              // that many times as long
	alertsTime   = 20 * time.Second

	backupNotice = 7 * 24 * time.Hour
	expiryNotice = 7 * 24 * time.Hour
)

// AlertView is something that the operator should know. Values in it may be of strangers.
type AlertView struct {
	Level string `json:"level"` // error: something is broken; warning; info
	Kind  string `json:"kind"`  // a word for each kind of alert
	Space string `json:"space"` // "" for the node
	Text  string `json:"text"`  // a sentence
}

// alerts are those that were found last.
type alerts struct {
	mu    sync.Mutex
	until time.Time   // guarded by mu
	found []AlertView // guarded by mu
}

// forget has the next question look again.
func (a *alerts) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.until = time.Time{}
}

func (n *Node) adminAlerts(r *http.Request) (int, any, error) {
	n.alerts.mu.Lock()
	defer n.alerts.mu.Unlock()
	if time.Now().After(n.alerts.until) {
		ctx, cancel := context.WithTimeout(r.Context(), alertsTime)
		defer cancel()
		began := time.Now()
		found, err := n.findAlerts(ctx)
		if err != nil {
			return 0, nil, err
		}
		n.alerts.found, n.alerts.until = found, time.Now().Add(max(alertsFor, alertsPause*time.Since(began)))
	}
	return http.StatusOK, n.alerts.found, nil
}

// findAlerts looks at the node and at its Spaces.
func (n *Node) findAlerts(ctx context.Context) ([]AlertView, error) {
	found := n.nodeAlerts(ctx)
	spaces := n.sortedSpaces()
	if len(spaces) > alertsSpaces {
		found = append(found, AlertView{"info", "many", "", fmt.Sprintf("Of %d Spaces only the first %d are looked at for alerts.", len(spaces), alertsSpaces)})
		spaces = spaces[:alertsSpaces]
	}
	for _, space := range spaces {
		v, err := n.brief(ctx, space)
		if err != nil {
			return nil, err
		}
		if found = append(found, v.Alerts(time.Now())...); len(found) > alertsMost {
			return found[:alertsMost], nil
		}
	}
	return found, nil
}

func (n *Node) nodeAlerts(ctx context.Context) []AlertView {
	found := []AlertView{}
	add := func(level, kind, format string, args ...any) {
		found = append(found, AlertView{Level: level, Kind: kind, Text: fmt.Sprintf(format, args...)})
	}
	for _, why := range n.trouble(ctx) {
		add("error", "trouble", "%s", why)
	}
	switch last := n.lastBackup(); {
	case !n.canBackUp() || len(n.store.Spaces()) == 0:
	case last.IsZero():
		add("info", "backup", "No backup of this node is known: tinycloud-peer backup DIR makes one.")
	case time.Since(last) > backupNotice:
		add("warning", "backup", "The last backup is %d days old: tinycloud-peer backup DIR makes another.", int(time.Since(last).Hours()/24))
	}
	return found
}

// canBackUp reports whether the verb backup works here.
func (n *Node) canBackUp() bool {
	return n.cfg.Storage.Datadir != "" && n.cfg.Storage.OnFiles()
}

// trouble says why the node can't serve, a sentence each.
func (n *Node) trouble(ctx context.Context) []string {
	why := []string{}
	if err := n.health(ctx); err != nil {
		why = append(why, "The place of large values can't be reached: "+err.Error())
	}
	if n.room.check() != nil {
		why = append(why, "Less is free on the disk than storage.reserve: writes are refused, and nothing is replicated here.")
	}
	return why
}

// Alerts are sentences about what an operator should know of a Space.
func (v SpaceView) Alerts(now time.Time) (found []AlertView) {
	add := func(level, kind, format string, args ...any) {
		found = append(found, AlertView{level, kind, v.Space.String(), fmt.Sprintf(format, args...)})
	}
	switch v.Standing {
	case capstore.StandsRemoved:
		add("warning", "removed", "The owner removed this host: it answers 403 and is not kept up to date.")
		return found // nothing else matters any more
	case capstore.StandsExpired:
		add("warning", "expired", "This node's host delegation is over: it reads what it has and does not write. The owner can host the Space here again.")
	case capstore.StandsNone:
		add("info", "none", "The owner has not made this node a host yet.")
	}
	if v.Standing == capstore.StandsHost && v.Expires != nil && v.Expires.Sub(now) < expiryNotice {
		add("warning", "expires", "This node's host delegation ends at %s: have the owner sign a new one.", v.Expires.Format(time.RFC3339))
	}
	if v.OverLimit {
		add("warning", "limit", "The Space is over its limit: writes are refused.")
	}
	if v.Conflicts > 0 {
		add("info", "conflicts", "%d writes lost against others that did not know of them: tinycloud-peer conflicts shows them.", v.Conflicts)
	}
	if v.Differing > 0 {
		add("error", "differing", "%d databases have other content on another host of the same writes: tinycloud-peer databases shows which.", v.Differing)
	}
	for _, why := range v.Paused {
		add("warning", "paused", "Replication is paused, %s.", why)
	}
	return append(append(found, v.hostAlerts()...), v.networkAlerts()...)
}

func (v SpaceView) hostAlerts() (found []AlertView) {
	add := func(kind, format string, args ...any) {
		found = append(found, AlertView{"warning", kind, v.Space.String(), fmt.Sprintf(format, args...)})
	}
	for _, h := range v.Hosts {
		if by, off := h.ClockOff(); off {
			where := "ahead of"
			if by < 0 {
				where = "behind"
			}
			add("clock", "The clock of %s is %s %s this one: its writes may count late or not at all.", h.DID, by.Abs().Round(time.Second), where)
		}
		if h.Forked {
			add("forked", "%s signed two histories: it was restored from a backup, or it lies.", h.DID)
		}
		if h.Older {
			add("older", "%s has an older version, and may order writes in another way until it is upgraded.", h.DID)
		}
		for _, service := range h.Behind {
			add("behind", "%s has an older version of %s, by which all hosts write until it is upgraded.", h.DID, service)
		}
	}
	return found
}

func (v SpaceView) networkAlerts() (found []AlertView) {
	add := func(kind, format string, args ...any) {
		found = append(found, AlertView{"warning", kind, v.Space.String(), fmt.Sprintf(format, args...)})
	}
	for _, x := range v.Networks {
		if x.Unopened > 0 {
			add("unopened", "%d keys of the encryption network %s do not open with this node's secret.", x.Unopened, x.Network)
		}
		if x.Alone {
			add("alone", "This node alone has the key of the encryption network %s: what is encrypted is lost with it. Pair another host, and keep backups.", x.Network)
		}
		if x.Outdated {
			add("outdated", "A host that was removed has the key of the encryption network %s: rotate it.", x.Network)
		}
	}
	return found
}
