//go:build !race

package replication_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/oracletest"
)

// A host that got a rule wrong would be found out: rules with that defect, which such a host would have in
// common with nobody, give another state than the hosts have, within a few seeds.
func TestPlantedDefects(t *testing.T) {
	t.Parallel()
	const seeds = 16
	left := map[oracletest.Defect]bool{}
	for _, d := range oracletest.Defects() {
		left[d] = true
	}
	wrong := plantedInDatabases()
	for seed := uint64(0); seed < seeds && len(left)+len(wrong) > 0; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 1_000_000+seed)
				s.replay = fmt.Sprintf("go test ./replication -run 'TestPlantedDefects/seed_%d'", seed)
				defer s.report()
				s.nodes[len(s.nodes)-1].honest = false
				s.run()
				s.audit()
				n := s.hosts()[0]
				glimpses := []*glimpse{{s.bundles(n), s.observe(n)}}
				if s.met != nil {
					glimpses = append(glimpses, s.met)
				}
				s.findOut(n, wrong)
				for _, g := range glimpses {
					for d := range left {
						st, err := oracletest.Fold(g.bundles, oracletest.Rules{Defect: d, Now: time.Now()})
						if err != nil {
							t.Fatal(err)
						}
						if diff := differences(st, g.state); len(diff) > 0 {
							t.Logf("%q is found out by %d differences, the first: %s", d, len(diff), diff[0])
							delete(left, d)
						}
					}
				}
			})
		})
	}
	for d := range left {
		t.Errorf("%q is not found out in %d seeds", d, seeds)
	}
	for d := range wrong {
		t.Errorf("%q is not found out in %d seeds", d, seeds)
	}
}

// mistake is what a host gets wrong with a database: what it makes of its history.
type mistake func(s *sim, db string, st oracletest.State) *played

// plantedInDatabases are mistakes by their name.
func plantedInDatabases() map[string]mistake {
	by := func(d oracletest.Defect) mistake {
		return func(s *sim, db string, _ oracletest.State) *played {
			st, err := oracletest.Fold(s.bundles(s.hosts()[0]), oracletest.Rules{Defect: d})
			if err != nil {
				s.t.Fatal(err)
			}
			return s.play(db, callsOn(st, db), odd{})
		}
	}
	return map[string]mistake{
		"order":        by(oracletest.OrderBySeq),
		"another body": by(oracletest.AnotherBody),
		"clock": func(s *sim, db string, st oracletest.State) *played { // of the host, when it runs
			return s.play(db, callsOn(st, db), odd{now: func(int64) int64 { return time.Now().UnixMilli() }})
		},
		"a verdict kept after a rewind": func(s *sim, db string, st oracletest.State) *played { // it is told, whatever is there
			p := s.play(db, callsOn(st, db), odd{})
			p.kept = map[tinycloud.Hash]error{}
			for _, g := range s.early {
				for id, was := range s.play(db, callsOn(g.fold(s), db), odd{}).verdicts {
					if is, known := p.verdicts[id]; known && (was == nil) != (is == nil) {
						p.kept[id] = was
					}
				}
			}
			return p
		},
		"a budget that depends on history": func(s *sim, db string, st oracletest.State) *played { // what ran before in the group counts
			all := s.play(db, callsOn(st, db), odd{})
			steps, over := int64(0), map[tinycloud.Hash]error{}
			for _, c := range callsOn(st, db) {
				if steps += all.steps[c.Token.ID]; all.steps[c.Token.ID] > 0 && steps > 20_000 {
					over[c.Token.ID] = errors.New("too many steps")
				}
			}
			return s.play(db, callsOn(st, db), odd{skip: over})
		},
		"a mark that outlives its past": func(s *sim, db string, st oracletest.State) *played { // what came before it is not looked at
			now, before := callsOn(st, db), []oracletest.Call{}
			for _, g := range s.early {
				before = callsOn(g.fold(s), db)
				same := func(a, b oracletest.Call) bool { return a.At == b.At }
				if !slices.EqualFunc(before, now[:min(len(before), len(now))], same) {
					break
				}
			}
			return s.play(db, append(slices.Clone(before), now[min(len(before), len(now)):]...), odd{})
		},
	}
}

// findOut looks which mistakes give another database than a host has, and takes them from the list.
func (s *sim) findOut(n *simNode, left map[string]mistake) {
	s.t.Helper()
	st, err := oracletest.Fold(s.bundles(n), oracletest.Rules{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, db := range databases(st) {
		has, err := dump(s.asks(n, db))
		if err != nil {
			s.t.Fatal(err)
		}
		for name, f := range left {
			p := f(s, db, st)
			made, err := dump(p.ask)
			if err != nil {
				s.t.Fatal(err)
			}
			diff := unlike(has, made)
			for _, c := range callsOn(st, db) {
				if was, kept := p.kept[c.Token.ID]; kept && len(diff) == 0 && s.outcome(n, db, c).Applied != (was == nil) {
					diff = append(diff, fmt.Sprintf("%s is applied: %t, not %t", c.Token.ID.EventID(), was != nil, was == nil))
				}
			}
			if len(diff) > 0 {
				s.t.Logf("%q is found out in %s by %d differences, the first: %s", name, db, len(diff), diff[0])
				delete(left, name)
			}
		}
	}
}
