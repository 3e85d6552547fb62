package blockstore

import (
	"sync"
	"time"
)

// A service, or a long way, bounds what one connection carries. A reader that is faster has the next parts of a long object asked
// for on other connections. The stream stays open where it was: it began while the object was there, so it goes on when a part
// can't be had any more, and an object that is removed meanwhile comes whole as before.
const (
	aheadPart    = 4 << 20
	aheadAtOnce  = 4                    // parts that a reader holds
	aheadReaders = 4                    // of a bucket that read so at a time
	aheadAfter   = 8 << 20              // by so much of it a stream is judged, again and again
	aheadWait    = 8 * time.Millisecond // for each MiB: a stream that is waited for longer is slow
)

// slow reports whether a stream is what holds a reader up, by how long that waited for so many bytes, and how long it took for
// all.
func slow(waited, took time.Duration, n int64) bool {
	return waited >= aheadWait*time.Duration(n>>20) && waited >= took*3/4
}

// part is one that is read ahead.
type part struct {
	at   int64
	data []byte
	done chan struct{}
	err  error // once done
}

// ahead is what is read ahead of the stream of an object.
type ahead struct {
	readers chan struct{} // holds one for each that reads so
	eager   bool          // tests: every stream is slow

	since  time.Time // of what the stream is judged by
	came   int64
	waited time.Duration

	begun bool // which is done once in the life of an object
	parts []*part
	next  int64 // where the part begins that is asked for next
	going sync.WaitGroup
}

// judge begins to read ahead if the stream is slow that so many bytes came from.
func (o *object) judge(n int, waited time.Duration) {
	a := &o.ahead
	if a.begun || a.readers == nil {
		return
	}
	if a.came == 0 {
		a.since = time.Now().Add(-waited)
	}
	a.came, a.waited = a.came+int64(n), a.waited+waited
	if a.came < aheadAfter {
		return
	}
	if a.eager || slow(a.waited, time.Since(a.since), a.came) {
		o.readAhead()
	}
	a.came, a.waited = 0, 0
}

// readAhead asks for the first parts. The stream is read up to them: what it has on its way is here soon.
func (o *object) readAhead() {
	a := &o.ahead
	if a.next = o.at + aheadPart; a.next >= o.size {
		return
	}
	select {
	case a.readers <- struct{}{}:
	default:
		return
	}
	a.begun = true
	for range aheadAtOnce {
		o.ask(nil)
	}
}

// ask asks for the next part, unless there is none. It takes the room of another, if that is given.
func (o *object) ask(room []byte) {
	a := &o.ahead
	n := min(aheadPart, o.size-a.next)
	if n <= 0 {
		return
	}
	if room == nil {
		room = make([]byte, n)
	}
	p := &part{at: a.next, data: room[:n], done: make(chan struct{})}
	a.parts, a.next = append(a.parts, p), a.next+int64(len(p.data))
	a.going.Go(func() {
		_, p.err = o.ReadAt(p.data, p.at)
		close(p.done)
	})
}

// stream is how many bytes are to be read from the stream before what is read ahead; it is not above zero within that.
func (o *object) stream() int64 {
	if len(o.ahead.parts) > 0 {
		return o.ahead.parts[0].at - o.at
	}
	return o.size - o.at
}

// take fills p with what was read ahead. It gives that up if it can't be had.
func (o *object) take(p []byte) (n int) {
	a := &o.ahead
	first := a.parts[0]
	<-first.done
	if first.err != nil {
		a.parts = nil
		return 0
	}
	n = copy(p, first.data[o.at-first.at:])
	if o.at += int64(n); o.at == first.at+int64(len(first.data)) {
		a.parts = a.parts[1:]
		o.ask(first.data)
	}
	return n
}

// end waits for what is asked for, which is cancelled.
func (a *ahead) end() {
	a.going.Wait()
	if a.begun {
		a.begun, a.parts = false, nil
		<-a.readers
		a.readers = nil
	}
}
