package p2p_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkFanOutModel reckons with a model of gossip what BenchmarkFanOut cannot hold: hosts that are connected with
// degree others each, by chance. Who publishes tells all of these, as flood publishing has it; who hears the first time
// tells its mesh, of 6 to 12 others as gossipsub keeps it, but the one it was told by. Of all copies a share is lost, as
// queues lose them; what comparisons bring later is not in it. For docs/scale.md.
func BenchmarkFanOutModel(b *testing.B) {
	for _, c := range []struct {
		hosts, degree int
		lost          float64
	}{{64, 16, 0}, {128, 16, 0}, {1000, 63, 0}, {10_000, 16, 0}, {10_000, 63, 0}, {10_000, 63, 0.1}} {
		b.Run(fmt.Sprintf("hosts=%d/degree=%d/lost=%.2f", c.hosts, c.degree, c.lost), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			g := newMesh(r, c.hosts, c.degree)
			var copies, heard, hops, publishes int
			n := 0
			for b.Loop() {
				n++
				m, h, d, p := g.publish(r, r.IntN(c.hosts), c.lost)
				copies, heard, hops, publishes = copies+m, heard+h, max(hops, d), publishes+p
			}
			b.ReportMetric(float64(copies)/float64(n)/float64(c.hosts-1), "copies/host")
			b.ReportMetric(float64(publishes)/float64(n), "publisher-copies")
			b.ReportMetric(100*float64(heard)/float64(n)/float64(c.hosts-1), "%heard")
			b.ReportMetric(float64(hops), "hops")
		})
	}
}

// mesh is who is connected with whom, and whose mesh has whom.
type mesh struct{ conns, mesh [][]int }

func newMesh(r *rand.Rand, hosts, degree int) mesh {
	const low, most = 6, 12
	link := func(degree, bound int, among func(i int) int) [][]int {
		of := make([]map[int]bool, hosts)
		for i := range of {
			of[i] = map[int]bool{}
		}
		for i := range of {
			for try := 0; len(of[i]) < degree && try < 100*degree; try++ {
				if j := among(i); j != i && len(of[j]) < bound {
					of[i][j], of[j][i] = true, true
				}
			}
		}
		out := make([][]int, hosts)
		for i, others := range of {
			for j := range hosts { // in order, so that the same seed makes the same
				if others[j] {
					out[i] = append(out[i], j)
				}
			}
		}
		return out
	}
	conns := link(degree, 2*degree, func(int) int { return r.IntN(hosts) })
	return mesh{conns, link(low, most, func(i int) int { return conns[i][r.IntN(len(conns[i]))] })}
}

// publish returns the copies that were sent, the hosts that heard, over how many others at most, and what who published
// sent itself.
func (g mesh) publish(r *rand.Rand, from int, lost float64) (copies, heard, hops, publishes int) {
	type way struct{ to, by int }
	known := make([]bool, len(g.conns))
	known[from] = true
	var now []way
	for _, j := range g.conns[from] {
		now = append(now, way{j, from})
	}
	for publishes = len(now); len(now) > 0; hops++ {
		var next []way
		for _, w := range now {
			copies++
			if known[w.to] || r.Float64() < lost {
				continue
			}
			known[w.to] = true
			heard++
			for _, j := range g.mesh[w.to] {
				if j != w.by {
					next = append(next, way{j, w.to})
				}
			}
		}
		now = next
	}
	return copies, heard, hops, publishes
}
