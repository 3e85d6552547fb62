package capstore_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// A process that met another's commit waits for the clients that it has just answered: until as many are there as last time, for a
// part of the time for which it had the lock, and never long. Who sends whole waits for half of the time that this takes. Who shares the lock with nobody waits for none.
func TestLinger(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		l      capstore.Lingering
		taken  int
		waited time.Duration
	}{
		"alone":                 {capstore.Lingering{Usual: 4, Held: 20 * ms, Come: []time.Duration{ms}}, 1, 0},
		"alone, others wait":    {capstore.Lingering{Usual: 9, Held: 20 * ms, Wait: 3}, 4, 0},
		"all are there":         {capstore.Lingering{Met: true, Usual: 4, Held: 20 * ms, Wait: 5, Come: []time.Duration{ms}}, 6, 0},
		"nobody else":           {capstore.Lingering{Met: true, Usual: 1, Held: 20 * ms, Come: []time.Duration{ms}}, 1, 0},
		"until all are back":    {capstore.Lingering{Met: true, Usual: 4, Held: 20 * ms, Come: []time.Duration{ms, ms, 2 * ms, ms}}, 4, 4 * ms},
		"with those that wait":  {capstore.Lingering{Met: true, Usual: 4, Held: 20 * ms, Wait: 1, Come: []time.Duration{ms, 2 * ms, ms}}, 4, 3 * ms},
		"some do not come back": {capstore.Lingering{Met: true, Usual: 4, Held: 20 * ms, Come: []time.Duration{2 * ms, 2 * ms, 2 * ms}}, 3, 5 * ms},
		"none comes back":       {capstore.Lingering{Met: true, Usual: 4, Held: 20 * ms}, 1, 5 * ms},
		"after a long turn":     {capstore.Lingering{Met: true, Usual: 4, Held: time.Second}, 1, 10 * ms},
		"whole, all come back":  {capstore.Lingering{Whole: true, Way: 16 * ms, Usual: 4, Come: []time.Duration{ms, ms, ms}}, 4, 3 * ms},
		"whole, some do not":    {capstore.Lingering{Whole: true, Way: 16 * ms, Usual: 4, Come: []time.Duration{ms}}, 2, 3 * ms},
		"whole, one by one":     {capstore.Lingering{Whole: true, Way: 16 * ms, Usual: 9, Come: []time.Duration{2*ms - 1, 2*ms - 1, 2*ms - 1, 2*ms - 1, 2 * ms}}, 5, 8 * ms},
		"more than a group":     {capstore.Lingering{Met: true, Usual: 1000, Held: time.Second, Wait: 300}, 256, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				taken, joined, waited := tt.l.Run()
				if taken != tt.taken || waited != tt.waited {
					t.Errorf("%d jobs after %s, want %d after %s", taken, waited, tt.taken, tt.waited)
				}
				if tt.l.Whole && joined != taken {
					t.Errorf("%d of %d jobs joined", joined, taken)
				}
			})
		})
	}
}
