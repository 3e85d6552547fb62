package sql

import "time"

// Credit is what replays may take that requests wait for.
type Credit struct{ credit }

// Spend is [credit.spend].
func (c *Credit) Spend(cost, most time.Duration, now time.Time) bool { return c.spend(cost, most, now) }
