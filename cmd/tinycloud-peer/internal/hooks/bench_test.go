package hooks_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

// BenchmarkStreams measures, with 100 streams and 500 puts a second, from the answer to a put to its event
// at each stream, in this process. Every event has to come.
func BenchmarkStreams(b *testing.B) {
	const streams = 100
	h := startNew(b, "host", hooks.Options{})
	o := newOwner(b, "alice").on(h)
	var mu sync.Mutex
	took := make([]time.Duration, 0, streams*b.N)
	answered := make([]time.Time, b.N)
	known := make([]chan struct{}, b.N) // closed when answered is set
	for i := range known {
		known[i] = make(chan struct{})
	}
	tokens := make([]*capstore.Token, b.N)
	for i := range tokens {
		tokens[i] = o.token(fmt.Sprint("kv/", i), "tinycloud.kv/put")
	}
	var wg sync.WaitGroup
	ticket := o.ticket(h, o.scope(""))
	for range streams {
		r := h.read(ticket, "", nil)
		r.note()
		wg.Go(func() {
			mine := make([]time.Duration, b.N)
			for i := range mine {
				e := <-r.events
				at := time.Now()
				if e.Path != fmt.Sprint(i) {
					b.Errorf("event %d is of %s", i, e.Path)
				}
				<-known[i]
				mine[i] = max(0, at.Sub(answered[i]))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	b.ResetTimer()
	for i := range b.N {
		<-tick.C
		o.putWith(h, tokens[i], fmt.Sprint(i))
		answered[i] = time.Now()
		close(known[i])
	}
	wg.Wait()
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
	b.ReportMetric(float64(streams*b.N-len(took)), "lost")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
}
