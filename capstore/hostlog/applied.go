package hostlog

// Applied tells what became of the bundles of a peer.
type Applied struct {
	New       int  // entries that were not known
	Duplicate int  // entries that were
	Covered   int  // leading bundles that are durable now
	Gap       bool // what the next one builds on is missing: pull
	Held      int  // entries that are durable, but of the future: they count when they are due
	Parked    bool // the next one is too, and there is no room for it: try later
}

// Add counts what became of the bundles behind them.
func (a *Applied) Add(b Applied) {
	a.New, a.Duplicate, a.Held, a.Covered = a.New+b.New, a.Duplicate+b.Duplicate, a.Held+b.Held, a.Covered+b.Covered
	a.Gap, a.Parked = a.Gap || b.Gap, a.Parked || b.Parked
}
