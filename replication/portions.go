package replication

import "slices"

// portion is a range of seq that a source was asked for.
type portion struct {
	first, last int64 // both included
	of          *giver
	size        int        // bytes that came
	batches     []received // whole only when all came
	whole       bool
}

// portions deals a span of seq out to sources, and gives back in order what they bring.
type portions struct {
	next, end int64      // what was not dealt out yet, both included
	levels    int64      // seqs of the next portion, so that it is about as long as it should be
	queue     []*portion // dealt out and not applied, in order
	waiting   int        // bytes of what came and was not applied
	size      int64      // bytes that a portion should have
}

func newPortions(first, last, size int64) *portions {
	return &portions{next: first, end: last, levels: firstLevels, size: size}
}

// deal returns what a source is to be asked for that has everything up to last, nil for nothing now.
func (d *portions) deal(to *giver, last int64) *portion {
	for i, p := range d.queue {
		if p.of == nil && p.last <= last && (i == 0 || d.room()) {
			p.of = to
			return p
		}
	}
	last = min(last, d.end, d.next+d.levels-1)
	if d.next > last || len(d.queue) > 0 && !d.room() {
		return nil
	}
	p := &portion{first: d.next, last: last, of: to}
	d.next = last + 1
	d.queue = append(d.queue, p)
	return p
}

// room says whether more may come before the first portion of the queue is here.
func (d *portions) room() bool {
	return len(d.queue) < maxPortions && d.waiting < maxJoined
}

// came notes that a portion is here up to a seq, which its source had to keep to.
func (d *portions) came(p *portion, last int64) {
	levels := last - p.first + 1
	if last < p.last {
		rest := &portion{first: last + 1, last: p.last}
		d.queue = slices.Insert(d.queue, slices.Index(d.queue, p)+1, rest)
		p.last = last
	}
	p.whole = true
	d.waiting += p.size
	d.levels = min(2*d.levels, max(1, levels*d.size/int64(max(p.size, 1))), maxLevels)
}

// first returns the portion that is to be applied next, nil when it was not dealt out.
func (d *portions) first() *portion {
	if len(d.queue) == 0 {
		return nil
	}
	return d.queue[0]
}

// applied removes the first portion.
func (d *portions) applied() {
	d.waiting -= d.queue[0].size
	d.queue = slices.Delete(d.queue, 0, 1)
}

// again has a portion asked for once more.
func (d *portions) again(p *portion) {
	if p.whole {
		d.waiting -= p.size
	}
	*p = portion{first: p.first, last: p.last}
}

// lost takes from a source what it was asked for and did not bring. The others have everything up to last.
func (d *portions) lost(of *giver, last int64) {
	for _, p := range d.queue {
		if p.of == of && !p.whole {
			d.again(p)
		}
	}
	d.stop(last)
}

// stop deals nothing out beyond a seq.
func (d *portions) stop(last int64) {
	d.end = min(d.end, last)
	for i, p := range d.queue {
		if p.of == nil && p.last > last {
			p.last = last // nobody has the rest
			d.next = d.end + 1
			if p.first > last {
				d.queue = d.queue[:i]
			} else {
				d.queue = d.queue[:i+1]
			}
			break
		}
	}
	d.waiting = 0
	for _, p := range d.queue {
		if p.whole {
			d.waiting += p.size
		}
	}
}

func (d *portions) over() bool { return len(d.queue) == 0 && d.next > d.end }
