package node

import (
	"context"
	"errors"
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

// errAlertsTime ends a look for alerts that takes too long.
var errAlertsTime = errors.New("looking for alerts takes too long")

// AlertView is something that the operator should know. Values in it may be of strangers.
type AlertView struct {
	Level string `json:"level"` // error: something is broken; warning; info
	Kind  string `json:"kind"`  // a word for each kind of alert
	Space string `json:"space"` // "" for the node
	Text  string `json:"text"`  // a sentence
}

// alerts are those that were found last.
type alerts struct {
	turn sync.Mutex // of who looks, which may take long; it is taken before mu

	mu      sync.Mutex
	until   time.Time   // guarded by mu
	found   []AlertView // guarded by mu
	changes int         // guarded by mu; how often what was found held no more
}

// forget has the next question look again. It does not wait for who looks now.
func (a *alerts) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.until = time.Time{}
	a.changes++
}

// known returns what was found, if it holds, and otherwise how often it held no more.
func (a *alerts) known() (found []AlertView, changes int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.found, a.changes, time.Now().Before(a.until)
}

// keep notes what was found, which took a time. It holds unless something changed meanwhile.
func (a *alerts) keep(found []AlertView, changes int, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changes == changes {
		a.found, a.until = found, time.Now().Add(max(alertsFor, alertsPause*took))
	}
}

func (n *Node) adminAlerts(r *http.Request) (int, any, error) {
	n.alerts.turn.Lock()
	defer n.alerts.turn.Unlock()
	found, changes, ok := n.alerts.known()
	if ok {
		return http.StatusOK, found, nil
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), alertsTime, errAlertsTime)
	defer cancel()
	began := time.Now()
	found, err := n.findAlerts(ctx)
	if err != nil {
		return 0, nil, err
	}
	n.alerts.keep(found, changes, time.Since(began))
	return http.StatusOK, found, nil
}

// findAlerts looks at the node and at its Spaces.
func (n *Node) findAlerts(ctx context.Context) ([]AlertView, error) {
	found := n.nodeAlerts(ctx)
	spaces := n.sortedSpaces()
	if len(spaces) > alertsSpaces {
		found = append(found, AlertView{"info", "many", "", fmt.Sprintf("Of %d Spaces only the first %d are looked at for alerts.", len(spaces), alertsSpaces)})
		spaces = spaces[:alertsSpaces]
	}
	for i, space := range spaces {
		v, err := n.brief(ctx, space)
		if err != nil && context.Cause(ctx) == errAlertsTime {
			return append(found, AlertView{"info", "many", "", fmt.Sprintf("Looking for alerts takes too long: %d of %d Spaces were looked at.", i, len(spaces))}), nil
		}
		if err != nil {
			return nil, err
		}
		if found = append(found, v.Alerts(time.Now(), nil)...); len(found) > alertsMost {
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

// Alerts are sentences about what an operator should know of a Space. Hosts are named by their aliases; host is how DIDs of
// others are shown, nil for as they are.
func (v SpaceView) Alerts(now time.Time, host func(did string) string) (found []AlertView) {
	add := func(level, kind, format string, args ...any) {
		found = append(found, AlertView{level, kind, v.Space.String(), fmt.Sprintf(format, args...)})
	}
	switch v.Standing {
	case capstore.StandsRemoved:
		add("warning", "removed", "The owner removed this host: it answers 403 and is not kept up to date.")
		return found // nothing else matters any more
	case capstore.StandsExpired:
		add("warning", "expired", "This node's host delegation is over: it reads what it has and does not write. tinycloud-peer host makes a new one for the owner to sign.")
	case capstore.StandsNone:
		add("info", "none", "The owner has not made this node a host yet: tinycloud-peer host says what to sign.")
	}
	if v.Standing != capstore.StandsExpired && v.Expires != nil && v.Expires.Sub(now) < expiryNotice {
		add("warning", "expires", "This node's host delegation ends at %s: have the owner sign a new one (tinycloud-peer host --renew).", v.Expires.Format(time.RFC3339))
	}
	if v.OverLimit {
		add("warning", "limit", "The Space is over its limit: writes are refused. tinycloud-peer quota shows and sets it.")
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
	for _, h := range v.Hosts {
		name := h.Alias
		switch {
		case name != "":
		case host != nil:
			name = host(h.DID)
		default:
			name = h.DID
		}
		h.alerts(func(kind, format string, args ...any) { add("warning", kind, format, append([]any{name}, args...)...) })
	}
	for _, x := range v.Networks {
		for _, a := range x.Alerts() {
			a.Space = v.Space.String()
			found = append(found, a)
		}
	}
	return found
}

// alerts calls add with formats whose first argument names the host.
func (h HostView) alerts(add func(kind, format string, args ...any)) {
	if by, off := h.ClockOff(); off {
		where := "ahead of"
		if by < 0 {
			where = "behind"
		}
		add("clock", "The clock of %s is %s %s this one: its writes may count late or not at all.", by.Abs().Round(time.Second), where)
	}
	if h.Forked {
		add("forked", "%s signed two histories: it was restored from a backup, or it lies.")
	}
	if h.Older {
		add("older", "%s has an older version, and may order writes in another way until it is upgraded.")
	}
	for _, service := range h.Behind {
		add("behind", "%s has an older version of %s, by which all hosts write until it is upgraded.", service)
	}
}

// Alerts are sentences about what an operator should do something about.
func (v NetworkView) Alerts() (found []AlertView) {
	add := func(kind, format string, args ...any) {
		found = append(found, AlertView{Level: "warning", Kind: kind, Text: fmt.Sprintf(format, args...)})
	}
	if v.Unopened > 0 {
		add("unopened", "%d keys of the encryption network %s do not open with this node's secret.", v.Unopened, v.Network)
	}
	if v.Alone {
		add("alone", "This node alone has the key of the encryption network %s: what is encrypted is lost with it. Pair another host, and keep backups.", v.Network)
	}
	if v.Outdated {
		add("outdated", "A host that was removed has the key of the encryption network %s: tinycloud-peer network rotate makes a new one.", v.Network)
	}
	return found
}
