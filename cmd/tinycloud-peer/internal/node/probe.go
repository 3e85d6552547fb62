package node

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const probeFor = time.Second // an answer holds

// probe asks something at most once a second, whoever wants to know: each question costs a request to a service.
type probe struct {
	question func(context.Context) error
	now      func() time.Time
	group    singleflight.Group

	mu    sync.Mutex
	until time.Time // guarded by mu
	last  error     // guarded by mu; the answer that holds until then
}

func (p *probe) ask(ctx context.Context) error {
	if known, err := p.known(); known {
		return err
	}
	asked := p.group.DoChan("", func() (any, error) {
		if known, err := p.known(); known { // another was quicker
			return nil, err
		}
		err := p.question(context.WithoutCancel(ctx)) // others wait for it too
		p.mu.Lock()
		defer p.mu.Unlock()
		p.last, p.until = err, p.now().Add(probeFor)
		return nil, err
	})
	select {
	case r := <-asked:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *probe) known() (known bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now().Before(p.until), p.last
}
