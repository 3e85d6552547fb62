package cluster_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// BenchmarkLargeValue puts a value on one process, waits until another one has fetched it, and reads it there. It
// reports the seconds of each and by how much either process's memory grew at most.
func BenchmarkLargeValue(b *testing.B) {
	for _, mib := range []int64{64, 1024} {
		b.Run(fmt.Sprint("MiB=", mib), func(b *testing.B) { largeValue(b, mib<<20) })
	}
}

func largeValue(b *testing.B, size int64) {
	c, o := cluster.New(cluster.Options{Binary: program(b), Dir: b.TempDir()}), cluster.NewOwner("large")
	b.Cleanup(func() {
		o.Close()
		_ = c.Close()
	})
	for range 2 {
		if _, err := c.Add(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	x, y := c.Peers()[0], c.Peers()[1]
	if err := hosted(b.Context(), o, x); err != nil {
		b.Fatal(err)
	}
	if err := o.Host(b.Context(), y); err != nil {
		b.Fatal(err)
	}
	if err := o.Join(b.Context(), y, x); err != nil {
		b.Fatal(err)
	}
	same := func() {
		b.Helper()
		if _, err := o.AwaitSame(b.Context(), c.Peers()); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 20 { // warm
		if err := o.Put(b.Context(), x, fmt.Sprint("warm/", i), value(i)); err != nil {
			b.Fatal(err)
		}
	}
	same()
	var before [2]float64
	for i, p := range c.Peers() {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID()), []byte("5"), 0); err != nil { // the peak is counted anew
			b.Fatal(err)
		}
		before[i] = resident(b, p)
	}
	began := time.Now()
	sent := blake3.New()
	body := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sent)
	answer, err := o.Call(b.Context(), x, http.MethodPost, "/invoke", o.Token("kv/large", "tinycloud.kv/put"), nil, body)
	if err != nil || answer.Status != http.StatusOK {
		b.Fatal(answer, err)
	}
	put := time.Now()
	same()
	there := time.Now()
	if got := download(b.Context(), b, y, o.Token("kv/large", "tinycloud.kv/get")); got != [32]byte(sent.Sum(nil)) {
		b.Fatal("other bytes")
	}
	b.ReportMetric(put.Sub(began).Seconds(), "s-put")
	b.ReportMetric(there.Sub(put).Seconds(), "s-replicate")
	b.ReportMetric(time.Since(there).Seconds(), "s-get")
	for i, p := range c.Peers() {
		b.ReportMetric(memory(b, p, "VmHWM:")-before[i], "MiB-growth-"+p.Name)
	}
}

// download reads a value and returns its hash.
func download(ctx context.Context, b *testing.B, p *cluster.Peer, token string) [32]byte {
	b.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/invoke", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Authorization", token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	h := blake3.New()
	if _, err := io.Copy(h, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status, err)
	}
	return [32]byte(h.Sum(nil))
}
