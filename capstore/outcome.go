package capstore

import (
	"errors"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// outcome of a transaction.
type outcome int

const (
	answered outcome = iota // all jobs have their answer
	alone                   // the jobs have to be tried one by one
	again                   // the transaction was in the way of another
)

// undo ends a transaction in which something failed.
func (w *writer) undo(t *tx, jobs []*job, err error, last bool) outcome {
	t.rollback()
	if t.failed && w.s.db.Shared && !db.Refused(err) {
		w.drop()
		w.s.log.ErrorContext(t.ctx, "transaction failed", "error", err, "jobs", len(jobs))
		finish(jobs, nil, unavailable(err))
		return answered
	}
	switch {
	case db.Retryable(err) && !last:
		return again
	case len(jobs) > 1:
		return alone
	}
	finish(jobs, nil, err)
	return answered
}

// refuse answers those who wait while the database is out of reach: each try to connect takes its time.
func (w *writer) refuse(err error) {
	for _, jobs := range []chan *job{w.s.jobs, w.s.bulk} {
		for range len(jobs) {
			finish((<-jobs).all(), nil, err)
		}
	}
}

// unavailable gives the end of a statement's own time the class of a database that is out of reach.
func unavailable(err error) error {
	if errors.Is(err, tinycloud.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("database: %v: %w", err, tinycloud.ErrUnavailable)
}

func finish(jobs []*job, errs []error, all error) {
	for i, j := range jobs {
		if all != nil {
			j.done <- all
		} else {
			j.done <- errs[i]
		}
	}
}

// rollback undoes the transaction.
func (t *tx) rollback() {
	_ = t.conn.Rollback(t.ctx) // a connection that cannot is dropped
	t.s.tokens.Purge()         // it may hold what was read inside the transaction
	t.unlearn()
}

// unlearn forgets what the memory knows of the Spaces that the transaction touched.
func (t *tx) unlearn() {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	for sp := range t.dirty {
		t.s.unloads(sp.id)
	}
	for _, sp := range t.created {
		delete(t.s.ids, sp.id)
		delete(t.s.imported, sp.id)
		delete(t.s.byHost, sp.host)
		t.s.unloads(sp.id)
	}
	t.forgetBegun()
	for _, sp := range t.promoted {
		if slices.Contains(t.created, sp) {
			continue
		}
		delete(t.s.ids, sp.id)
		delete(t.s.byHost, sp.host)
		t.s.imported[sp.id] = sp.sid
	}
}

// publish makes the outcome of a durable transaction known.
func (t *tx) publish() {
	s := t.s
	s.mu.Lock()
	for target, r := range t.revoked {
		s.revoked[target] = r
	}
	for id, bytes := range t.quotas {
		if bytes == nil {
			delete(s.quotas, id)
		} else {
			s.quotas[id] = *bytes
		}
	}
	t.publishPairs()
	t.publishStandings()
	t.unload()
	s.mu.Unlock()
	if t.adopts {
		s.adopting.Give()
	}
	var commits []Commit
	if len(t.pairs) > 0 {
		commits = append(commits, Commit{Pairs: true, More: len(t.order) > 0})
	}
	for i, sp := range t.order {
		c := t.dirty[sp]
		c.Ended, c.More = len(t.revoked), i < len(t.order)-1
		commits = append(commits, *c)
	}
	t.tellHosting()
	t.settle(commits)
	for _, c := range commits {
		if c.Parked > 0 {
			s.parked.Give()
		}
	}
}

// touch marks a Space as changed by the transaction.
func (t *tx) touch(sp *space) *Commit {
	c := t.dirty[sp]
	if c == nil {
		c = &Commit{Commit: hostlog.Commit{Space: sp.id}}
		t.dirty[sp] = c
		t.order = append(t.order, sp)
	}
	return c
}
