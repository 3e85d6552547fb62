package replication

import (
	"context"
	"errors"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

const (
	offenceLimit = 3
	offenceLife  = 10 * time.Minute // after which offences are forgotten
	banTime      = 5 * time.Minute
	maxOffenders = 1024
)

// offences counts what no honest host sends.
type offences struct {
	mu sync.Mutex
	m  map[hostlog.Key]*offence // guarded by mu
}

type offence struct {
	count int
	last  time.Time
	until time.Time // of the ban
}

// add counts an offence; it reports true when the host is to be cut off.
func (o *offences) add(host hostlog.Key) bool {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.m[host]
	if x == nil {
		if len(o.m) >= maxOffenders {
			o.forget(now)
		}
		x = &offence{}
		o.m[host] = x
	}
	if now.Sub(x.last) > offenceLife {
		x.count = 0
	}
	x.count++
	x.last = now
	if x.count < offenceLimit {
		return false
	}
	x.count, x.until = 0, now.Add(banTime)
	return true
}

// forget drops what is over, or anything when nothing is: the table is bounded.
func (o *offences) forget(now time.Time) {
	for host, x := range o.m {
		if now.Sub(x.last) > offenceLife {
			delete(o.m, host)
		}
	}
	for host := range o.m {
		if len(o.m) < maxOffenders {
			return
		}
		delete(o.m, host)
	}
}

func (o *offences) banned(host hostlog.Key) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.m[host]
	return x != nil && time.Now().Before(x.until)
}

// judge logs why a stream with a peer failed and cuts the peer off when it offended too often.
func (r *Replica) judge(ctx context.Context, m *remote, err error) {
	if ctx.Err() != nil {
		return
	}
	if !errors.Is(err, tinycloud.ErrInvalid) && !errors.Is(err, tinycloud.ErrForged) {
		level := r.log.DebugContext
		if _, ours := errors.AsType[ownError](err); ours {
			level = r.log.WarnContext
		}
		level(ctx, "stream failed", "peer", m.id, "error", err)
		return
	}
	r.offended(ctx, m, "sync", err)
}

// offended counts an offence of a peer and cuts it off when there were too many.
func (r *Replica) offended(ctx context.Context, m *remote, layer string, err error) {
	r.log.WarnContext(ctx, "peer sent what no host should", "peer", m.id, "layer", layer, "error", err)
	r.o.Metrics.refuse(layer)
	if r.offences.add(m.host) {
		r.log.WarnContext(ctx, "host cut off", "peer", m.id, "for", banTime)
		r.spawn(func(context.Context) { r.net.Peer.Evict(m.id) })
	}
}
