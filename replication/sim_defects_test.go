//go:build !race

package replication_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

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
	for seed := uint64(0); seed < seeds && len(left) > 0; seed++ {
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
}
