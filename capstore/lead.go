package capstore

import (
	"context"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// The lease of the process that leads. A leader that cannot renew stops in time for the next one: what it
// runs has stopMargin to end before the lease does.
const (
	leaseTerm   = 8 * time.Second
	renewEvery  = 2 * time.Second
	claimEvery  = time.Second
	stopMargin  = 3 * time.Second
	leaseAnswer = 1500 * time.Millisecond // the server has to answer
)

// Task is what one of the processes that share a database does for all.
type Task string

// The tasks.
const (
	Replication Task = "p2p"
	Webhooks    Task = "webhooks"
)

// Lead calls f while this process leads a task, again each time it comes to lead, until ctx ends. The context
// of f ends when it leads no more; f has to return within three seconds of that. A process that has the database
// for itself always leads. Lead returns the error of f; f returning nil early makes way for another. A task is
// led once at a time in a process.
func (s *Store) Lead(ctx context.Context, task Task, f func(context.Context) error) error {
	if !s.db.Shared {
		return f(ctx)
	}
	for ctx.Err() == nil {
		until, ok := s.claim(ctx, task)
		if !ok {
			wait(ctx, claimEvery)
			continue
		}
		s.log.Info("this process leads", "task", task)
		err := s.leadUntil(ctx, task, until, f)
		s.release(ctx, task)
		s.log.Info("this process leads no more", "task", task)
		if err != nil {
			return err
		}
	}
	return nil
}

// Alone calls f while no other process that shares the database leads. A node that runs leads, or one beside it
// does; while f runs none may be started. The error is of class [tinycloud.ErrConflict] when there is one.
func (s *Store) Alone(ctx context.Context, f func(context.Context) error) error {
	if !s.db.Shared {
		return f(ctx)
	}
	last := time.Now().Add(leaseTerm + claimEvery) // by then the lease of one that was killed is over
	for {
		until, ok := s.claim(ctx, Replication)
		if ok {
			defer s.release(ctx, Replication)
			return s.leadUntil(ctx, Replication, until, f)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(last) {
			return fmt.Errorf("a node is running on this database: %w", tinycloud.ErrConflict)
		}
		wait(ctx, claimEvery)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// leadUntil runs f and renews the lease, which is held until then.
func (s *Store) leadUntil(ctx context.Context, task Task, until time.Time, f func(context.Context) error) error {
	own, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- f(own) }()
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	end := time.NewTimer(time.Until(until) - stopMargin)
	defer end.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-end.C:
			s.log.Warn("the lease cannot be renewed")
			stop()
			return <-done
		case <-tick.C:
			if later, ok := s.claim(ctx, task); ok {
				end.Reset(time.Until(later) - stopMargin)
			}
		}
	}
}

// claim takes or renews the lease and returns until when it is held at least, by the clock of this process.
func (s *Store) claim(ctx context.Context, task Task) (until time.Time, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, leaseAnswer)
	defer cancel()
	until = time.Now().Add(leaseTerm)
	n, err := s.db.Control.Exec(ctx, "UPDATE leases SET holder = ?, expires = "+s.db.Clock+" + ? WHERE name = ? AND (holder = ? OR expires < "+s.db.Clock+")",
		s.me[:], leaseTerm.Milliseconds(), string(task), s.me[:])
	if err != nil && ctx.Err() == nil {
		s.log.Warn("cannot ask for the lease", "error", err)
	}
	return until, err == nil && n == 1
}

// release lets another process lead at once.
func (s *Store) release(ctx context.Context, task Task) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseAnswer)
	defer cancel()
	_, err := s.db.Control.Exec(ctx, "UPDATE leases SET expires = 0 WHERE name = ? AND holder = ?", string(task), s.me[:])
	if err != nil {
		s.log.Warn("the lease runs out by itself", "error", err)
	}
}
