package capstore

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// The lease of the process that leads. A leader that cannot renew stops in time for the next one: what it
// runs has stopMargin to end before the lease does.
const (
	leaseTerm   = 7 * time.Second
	renewEvery  = time.Second
	claimEvery  = 500 * time.Millisecond
	stopMargin  = 3 * time.Second
	leaseAnswer = 1500 * time.Millisecond // the server has to answer
)

// Task is what one of the processes that share a database does for all.
type Task string

// The tasks.
const (
	Replication Task = "p2p"
	Webhooks    Task = "webhooks"
	judging     Task = "judging"
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
			wait.For(ctx, claimEvery)
			continue
		}
		s.log.InfoContext(ctx, "this process leads", "task", task)
		s.leading.Store(task, until)
		err := s.leadUntil(ctx, task, until, f)
		s.leading.Delete(task)
		s.release(ctx, task)
		s.log.InfoContext(ctx, "this process leads no more", "task", task)
		if err != nil {
			return err
		}
	}
	return nil
}

// aboard is the prefix of the leases by which processes say that they have the database open.
const aboard = "process "

// stayAboard renews this process's word that it has the database open, until the context ends.
func (s *Store) stayAboard(ctx context.Context) {
	if !s.db.Shared {
		return
	}
	name := aboard + hex.EncodeToString(s.me[:])
	for ctx.Err() == nil {
		n, err := s.db.Control.Exec(ctx, "UPDATE leases SET expires = "+s.db.Clock+" + ? WHERE name = ?", leaseTerm.Milliseconds(), name)
		if err == nil && n == 0 {
			_, err = s.db.Control.Exec(ctx, "INSERT INTO leases (name, holder, expires) VALUES (?, ?, "+s.db.Clock+" + ?)", name, s.me[:], leaseTerm.Milliseconds())
		}
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot tell other processes that this one is here", "error", err)
		}
		wait.For(ctx, renewEvery)
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseAnswer)
	defer cancel()
	_, _ = s.db.Control.Exec(ending, "DELETE FROM leases WHERE name = ? OR (name LIKE ? AND expires < "+s.db.Clock+")", name, aboard+"%") // else it runs out
}

// Alone calls f if no other process has the database open; while f runs none may be started. The error is of
// class [tinycloud.ErrConflict] when there is one.
func (s *Store) Alone(ctx context.Context, f func(context.Context) error) error {
	if !s.db.Shared {
		return f(ctx)
	}
	last := time.Now().Add(leaseTerm + claimEvery) // by then the word of one that was killed is void
	for {
		var n int64
		_, err := s.db.Read.One(ctx, []any{&n}, "SELECT count(*) FROM leases WHERE name LIKE ? AND holder <> ? AND expires >= "+s.db.Clock, aboard+"%", s.me[:])
		switch {
		case err != nil:
			return err
		case n == 0:
			return f(ctx)
		case time.Now().After(last):
			return fmt.Errorf("a node is running on this database: %w", tinycloud.ErrConflict)
		}
		wait.For(ctx, claimEvery)
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
			s.log.WarnContext(ctx, "the lease cannot be renewed")
			stop()
			return <-done
		case <-tick.C:
			if later, ok := s.claim(ctx, task); ok {
				s.leading.Store(task, later)
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
		s.log.WarnContext(ctx, "cannot ask for the lease", "error", err)
	}
	return until, err == nil && n == 1
}

// release lets another process lead at once.
func (s *Store) release(ctx context.Context, task Task) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseAnswer)
	defer cancel()
	_, err := s.db.Control.Exec(ctx, "UPDATE leases SET expires = 0 WHERE name = ? AND holder = ?", string(task), s.me[:])
	if err != nil {
		s.log.WarnContext(ctx, "the lease runs out by itself", "error", err)
	}
}

// LedFor is for how long what is done for a task may go on by what is known now, if it then ends within three seconds;
// 0 when this process does not lead it, and long when it has the database for itself.
func (s *Store) LedFor(task Task) time.Duration {
	if !s.db.Shared {
		return time.Hour
	}
	until, ok := s.leading.Load(task)
	if !ok {
		return 0
	}
	return max(0, time.Until(until.(time.Time))-stopMargin)
}

// maxShown is how many bytes a process says of where it is.
const maxShown = 8 << 10

// Show tells other processes where this one is found that leads a task.
func (s *Store) Show(ctx context.Context, task Task, addrs []string) error {
	text := strings.Join(append([]string{hex.EncodeToString(s.me[:])}, addrs...), " ")
	if len(text) > maxShown {
		return fmt.Errorf("addresses of %d bytes: %w", len(text), tinycloud.ErrTooLarge)
	}
	ctx, cancel := context.WithTimeout(ctx, leaseAnswer)
	defer cancel()
	_, err := s.db.Control.Exec(ctx, "UPDATE leases SET addrs = ? WHERE name = ? AND holder = ?", text, string(task), s.me[:])
	return err
}

// Leader returns where the other process that leads a task is found; ok is false when none does, or it does not say.
func (s *Store) Leader(ctx context.Context, task Task) (addrs []string, ok bool, err error) {
	if !s.db.Shared {
		return nil, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaseAnswer)
	defer cancel()
	var holder []byte
	var shown *string
	found, err := s.db.Control.One(ctx, []any{&holder, &shown}, "SELECT holder, addrs FROM leases WHERE name = ? AND expires >= "+s.db.Clock, string(task))
	if err != nil || !found || shown == nil || bytes.Equal(holder, s.me[:]) {
		return nil, false, err
	}
	// A process of an older release leaves there what the one before it said.
	name, rest, _ := strings.Cut(*shown, " ")
	if name != hex.EncodeToString(holder) || rest == "" {
		return nil, false, nil
	}
	return strings.Fields(rest), true, nil
}
