package node_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// TestProbe has many ask at once and in a row: there is one question a second, and all get its answer.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer := 0, error(nil)
		ask := node.Probe(func(context.Context) error {
			asked++
			time.Sleep(100 * time.Millisecond)
			return answer
		})
		all := func(want error) {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					if err := ask(t.Context()); !errors.Is(err, want) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		all(nil)
		answer = context.DeadlineExceeded
		all(nil)
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		time.Sleep(time.Second)
		all(answer)
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
		time.Sleep(time.Second)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := ask(gone); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(time.Second) // the question goes on without it
	})
}
