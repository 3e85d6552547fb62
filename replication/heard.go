package replication

import (
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const maxHeard = 4096 // log entries remembered in each of two generations

// heard remembers the log entries that gossip brought lately. gossipsub knows only its own envelopes: who signs a
// new one around an old entry would have every host judge it and pass it on again.
type heard struct {
	mu       sync.Mutex
	now, old map[heardEntry]struct{} // guarded by mu
}

type heardEntry struct {
	digest tinycloud.Hash
	whole  bool // with its epoch, not only announced
}

func entriesOf(it inItem) []heardEntry {
	out := make([]heardEntry, 0, len(it.checked)+len(it.tips))
	for _, p := range it.checked {
		out = append(out, heardEntry{p.Digest, true})
	}
	for _, t := range it.tips {
		out = append(out, heardEntry{t.Digest, false})
	}
	return out
}

// all reports whether every entry of a message was heard.
func (h *heard) all(it inItem) bool {
	entries := entriesOf(it)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range entries {
		_, now := h.now[e]
		if _, old := h.old[e]; !now && !old {
			return false
		}
	}
	return len(entries) > 0
}

func (h *heard) add(it inItem) {
	entries := entriesOf(it)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range entries {
		if h.now == nil || len(h.now) >= maxHeard {
			h.old, h.now = h.now, map[heardEntry]struct{}{}
		}
		h.now[e] = struct{}{}
	}
}
