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
