package capstore

import (
	"context"
	"encoding/json"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// Rules is the version of the rules by which this release judges a history and orders its writes. Hosts of one
// version that have the same entries are in the same state.
const Rules = judge.Rules

// toldNothing is the rules of a host that was met and told none.
const toldNothing = -1

// SaveHello keeps what a host told of its release, and reports whether it is something else than before. It writes only
// then. What a host told last counts: it may have gone back to an older release.
func (s *Store) SaveHello(ctx context.Context, id tinycloud.SpaceID, host hostlog.Key, h hostlog.Hello) (changed bool, err error) {
	if err := h.Check(); err != nil {
		return false, err
	}
	services, err := json.Marshal(append([]hostlog.Service{}, h.Services...))
	if err != nil {
		return false, fmt.Errorf("services: %v: %w", err, tinycloud.ErrInvalid)
	}
	rules := int64(h.Rules)
	if rules == 0 {
		rules = toldNothing
	}
	sid, err := s.sid(ctx, id)
	if err != nil {
		return false, err
	}
	var before int64
	var had string
	if _, err := s.db.Read.One(ctx, []any{&before, &had}, "SELECT rules, services FROM hosts WHERE sid = ? AND host = ?", sid, host[:]); err != nil {
		return false, err
	}
	if before == rules && had == string(services) {
		return false, nil
	}
	return true, s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		delete(t.older, sp)
		delete(t.heard, sp)
		return t.add(db.Insert{Into: "hosts", Columns: "sid host rules services", Key: "sid host", Replace: true}, sp.sid, host[:], rules, string(services))
	})
}

// told reads what is stored of a host's release.
func told(rules int64, services string) (h hostlog.Hello, met bool, err error) {
	if rules == 0 {
		return h, false, nil
	}
	h.Rules = uint64(max(rules, 0))
	return h, true, json.Unmarshal([]byte(services), &h.Services)
}

// heard is what another host told of its release.
type heard struct {
	host hostlog.Key
	hostlog.Hello
	bare bool // it knows no services
}

// heardFrom are the other hosts of a Space that were met, as the transaction found them first.
func (t *tx) heardFrom(sp *space) (all []heard, err error) {
	if all, ok := t.heard[sp]; ok {
		return all, nil
	}
	err = t.each(func(scan db.Scan) error {
		var host []byte
		var rules int64
		var services string
		if err := scan(&host, &rules, &services); err != nil {
			return err
		}
		h := heard{host: hostlog.Key(host), bare: services == "" || services == "[]"}
		if h.host == sp.host {
			return nil
		}
		if rules > 0 {
			var err error
			if h.Hello, _, err = told(rules, services); err != nil {
				return err
			}
		}
		all = append(all, h)
		return nil
	}, "SELECT host, rules, services FROM hosts WHERE sid = ? AND rules <> 0", sp.sid)
	if err != nil {
		return nil, err
	}
	if t.heard == nil {
		t.heard = map[*space][]heard{}
	}
	t.heard[sp] = all
	return all, nil
}

// unserved reports whether another host of a Space is known to be of a release that knows no services.
func (t *tx) unserved(sp *space) (bool, error) {
	all, err := t.heardFrom(sp)
	bare := map[hostlog.Key]bool{}
	for _, h := range all {
		if h.bare {
			bare[h.host] = true
		}
	}
	return len(bare) > 0 && t.inWindow(sp, bare), err
}

// spoken is the least of the versions of a service that this host has, and that others in their windows last told. A host that
// does not have the service passes its operations on as they are, and one that was never heard is not waited for.
func (t *tx) spoken(sp *space, name string) (least uint64, err error) {
	all, err := t.heardFrom(sp)
	versions := map[hostlog.Key]uint64{}
	for _, h := range all {
		if v, ok := h.Version(name); ok {
			versions[h.host] = v
		}
	}
	least = t.s.services[name].Version()
	sp.facts.Hosts(func(h hostlog.Key, tok *Token) bool {
		if v, ok := versions[h]; ok && v < least && !t.isRevoked(tok.ID) && tok.ValidAt(t.now, 0) {
			least = v
		}
		return true
	})
	return least, err
}

// hostsThat are the other hosts of a Space whose rows meet a condition.
func (t *tx) hostsThat(sp *space, condition string, args ...any) (map[hostlog.Key]bool, error) {
	hosts := map[hostlog.Key]bool{}
	err := t.each(func(scan db.Scan) error {
		var host []byte
		if err := scan(&host); err != nil {
			return err
		}
		hosts[hostlog.Key(host)] = true
		return nil
	}, "SELECT host FROM hosts WHERE sid = ? AND "+condition, append([]any{sp.sid}, args...)...)
	delete(hosts, sp.host)
	return hosts, err
}

// inWindow reports whether one of some hosts is one now.
func (t *tx) inWindow(sp *space, hosts map[hostlog.Key]bool) (is bool) {
	sp.facts.Hosts(func(h hostlog.Key, tok *Token) bool {
		is = hosts[h] && !t.isRevoked(tok.ID) && tok.ValidAt(t.now, 0)
		return !is
	})
	return is
}

// mixed reports whether another host of a Space is known to judge by older rules: it orders writes in another way, so a
// value that is past here may be current there, and this host may be the only one that has it.
func (t *tx) mixed(sp *space) (bool, error) {
	if mixed, ok := t.older[sp]; ok {
		return mixed, nil
	}
	older, err := t.hostsThat(sp, "rules <> 0 AND rules < ?", Rules)
	if err != nil {
		return false, err
	}
	mixed := len(older) > 0 && t.inWindow(sp, older)
	t.older[sp] = mixed
	return mixed, nil
}
