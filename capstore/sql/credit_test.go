package sql_test

import (
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

// However often a host inserts at old places, what requests wait for it is a tenth of the time, and a second at once; what
// costs little comes through at any rate.
func TestCredit(t *testing.T) {
	for _, tt := range []struct{ cost, every, want time.Duration }{
		{50 * time.Millisecond, 100 * time.Millisecond, 11 * time.Second},
		{900 * time.Millisecond, time.Second, 11 * time.Second},
		{time.Second + 1, time.Second, 0},
		{time.Millisecond, 20 * time.Millisecond, 5 * time.Second},
	} {
		var c sql.Credit
		var spent time.Duration
		for now := time.Duration(0); now < 100*time.Second; now += tt.every {
			if c.Spend(tt.cost, time.Second, time.UnixMilli(1e12).Add(now)) {
				spent += tt.cost
			}
		}
		if spent > tt.want || spent < tt.want*9/10 {
			t.Errorf("%v each %v: %v of 100 s, want %v", tt.cost, tt.every, spent, tt.want)
		}
	}
}
