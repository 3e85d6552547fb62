package encryption_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
)

// BenchmarkDecrypt asks for data keys one after the other: the checks, the keys, and a durable row of each decision.
func BenchmarkDecrypt(b *testing.B) {
	h := open(b, filepath.Join(b.TempDir(), "caps.db"), begin, nil)
	alice := h.owner(captest.NewSession("alice"))
	e, _ := encrypt(b, h.mustCreate(alice.Create(alice.Key.DID(), "default")))
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		q, _ := alice.Decrypt(e.NetworkID, 1, networktest.Seal(publicOf(b, h, alice), make([]byte, 32)))
		q.Token.Expires = h.now().Add(time.Minute)
		header, body := q.Header(), []byte(q.Text())
		b.StartTimer()
		began := time.Now()
		if _, err := h.Decrypt(b.Context(), token(b, header), e.NetworkID, body); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
}
