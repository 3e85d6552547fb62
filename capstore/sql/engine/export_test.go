package engine

// OnStep has f called between the steps on files.
func (o *Options) OnStep(f func(string)) { o.step = f }
