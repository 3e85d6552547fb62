package oracletest

import (
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// removals fills in which entries are valid, by the letter: every entry, every removal, whole ancestor
// sets, again and again until nothing changes. It knows delegations by the owner alone.
func removals(order []*epoch) {
	type removal struct {
		token *capstore.Token
		host  hostlog.Key
		cut   *epoch
	}
	facts := map[tinycloud.Hash]*capstore.Token{}
	in := map[tinycloud.Hash][]*epoch{}
	for _, e := range order {
		for _, tok := range e.events {
			facts[tok.ID] = tok
			in[tok.ID] = append(in[tok.ID], e)
		}
	}
	if len(order) == 0 {
		return
	}
	space := order[0].entries[0].Space
	hostOf := func(d *capstore.Token) (h hostlog.Key, ok bool) {
		h, ok = hostlog.KeyOf(d.Audience)
		return h, ok && d.Kind == token.Delegation && d.HostsSpace(space) && d.Signer == space.Owner()
	}
	ends := func(r removal, d *capstore.Token) bool {
		h, ok := hostOf(d)
		younger := d.IssuedAt.After(r.token.IssuedAt)
		return ok && (d.ID == r.token.Target || h == r.host && !younger && (r.token.Signer == space.Owner() || r.token.Signer == d.Audience))
	}
	// held are the host delegations an entry of a host can rest on.
	held := func(e *epoch, h hostlog.Key) (out []*capstore.Token) {
		for id, d := range facts {
			if host, ok := hostOf(d); !ok || host != h {
				continue
			}
			for _, p := range in[id] {
				if p == e || e.past[p.id] {
					out = append(out, d)
					break
				}
			}
		}
		return out
	}
	var removals []removal
	for _, r := range facts {
		d := facts[r.Target]
		if r.Kind != token.Revocation || d == nil {
			continue
		}
		h, ok := hostOf(d)
		if !ok || r.Signer != space.Owner() && r.Signer != d.Audience {
			continue
		}
		x := removal{token: r, host: h}
		for _, others := range []bool{true, false} {
			for _, e := range in[r.ID] {
				fits := false
				for i, l := range e.entries {
					other := false
					for _, d := range held(e, l.Host) {
						other = other || l.Host != h && !ends(x, d)
					}
					fits = fits || e.able[i] && (other || !others)
				}
				at, best := capstore.Position{Seq: e.seq, Epoch: e.id}, capstore.Position{}
				if x.cut != nil {
					best = capstore.Position{Seq: x.cut.seq, Epoch: x.cut.id}
				}
				if fits && (x.cut == nil || at.Compare(best) < 0) {
					x.cut = e
				}
			}
			if x.cut != nil {
				break
			}
		}
		removals = append(removals, x)
	}
	type key struct {
		e *epoch
		i int
	}
	valid := map[key]bool{}
	survives := func(e *epoch, h hostlog.Key, r removal) bool {
		if r.cut != nil && (r.cut == e || r.cut.past[e.id]) {
			return true
		}
		for k := range valid {
			if k.e.entries[k.i].Host == h || k.e != e && !k.e.past[e.id] {
				continue
			}
			knew := false
			for _, p := range in[r.token.ID] {
				knew = knew || k.e.past[p.id]
			}
			if !knew {
				return true
			}
		}
		return false
	}
	for changed := true; changed; {
		changed = false
		for _, e := range order {
			for i, l := range e.entries {
				if valid[key{e, i}] || !e.able[i] {
					continue
				}
				for _, d := range held(e, l.Host) {
					ok := true
					for _, r := range removals {
						ok = ok && (!ends(r, d) || survives(e, l.Host, r))
					}
					if ok {
						valid[key{e, i}], changed = true, true
						break
					}
				}
			}
		}
	}
	for k := range valid {
		l := k.e.entries[k.i]
		k.e.valid = append(k.e.valid, l.At)
		class := 0
		if !l.Import.IsZero() {
			class = 2
		}
		if !slices.ContainsFunc(held(k.e, l.Host), func(d *capstore.Token) bool {
			return !slices.ContainsFunc(removals, func(r removal) bool { return ends(r, d) })
		}) {
			class++
		}
		k.e.witnessed[class] = append(k.e.witnessed[class], l.At)
	}
}
