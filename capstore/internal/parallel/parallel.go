// Package parallel has all cores do what needs no order.
package parallel

import (
	"runtime"
	"sync"
)

// Do calls f for 0 … n-1 on all cores, and returns when all is done.
func Do(n int, f func(int)) {
	workers := min(n, runtime.GOMAXPROCS(0))
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}
