package engine

// Tight is a version of rules that random operations come to the bounds of.
const Tight = 1 << 40

func init() {
	rules[Tight] = Rules{
		Tiers: []Tier{{4 << 10, 260}, {32 << 10, 160}, {1 << 20, 100}}, Bytes: 300, Rows: 2000, Temporary: 64 << 10, Growth: 3, Pages: 60,
	}
}

// OnStep has f called between the steps on files.
func (o *Options) OnStep(f func(string)) { o.step = f }

// Interrupt stops what writes, as the end of a request's time does, until the operation has run that is tried next.
func (d *DB) Interrupt() { d.c.Interrupt() }
