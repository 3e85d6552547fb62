package capstore

import (
	"context"
	"errors"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Sums are the hashes of what this host made of a Space's history, for those services whose hosts compare it. It may take
// long. Source: docs/replication.md, "Comparing content".
func (s *Store) Sums(ctx context.Context, space tinycloud.SpaceID) ([]hostlog.Sum, error) {
	var out []hostlog.Sum
	for _, x := range s.o.Services {
		c, ok := x.(service.Comparer)
		if !ok {
			continue
		}
		sums, err := c.Sums(ctx, s, space)
		if err != nil {
			return nil, err
		}
		for _, sum := range sums {
			out = append(out, hostlog.Sum{Service: x.Name(), Subject: sum.Subject, State: sum.State, Content: sum.Content})
		}
	}
	return out, nil
}

// SumOf is this host's for what another asks of, if it has one of the same operations.
func (s *Store) SumOf(space tinycloud.SpaceID, asked hostlog.Sum) (hostlog.Sum, bool) {
	c, ok := s.services[asked.Service].(service.Comparer)
	if !ok {
		return hostlog.Sum{}, false
	}
	sum, ok := c.Sum(space, asked.Subject)
	return hostlog.Sum{Service: asked.Service, Subject: sum.Subject, State: sum.State, Content: sum.Content}, ok && sum.State == asked.State
}

// Compared takes the sums of another host. What differs is told to the operator, and may be made anew.
func (s *Store) Compared(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, theirs []hostlog.Sum) (err error) {
	for _, x := range theirs {
		if c, ok := s.services[x.Service].(service.Comparer); ok {
			err = errors.Join(err, c.Compared(ctx, s, space, host.String(), service.Sum{Subject: x.Subject, State: x.State, Content: x.Content}))
		}
	}
	return err
}
