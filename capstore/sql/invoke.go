package sql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// EpochHeader names the epoch of a write in its answer.
const EpochHeader = "TinyCloud-Epoch"

// maxQuery is how long a query may take, and how long it waits for the files.
const maxQuery = 10 * time.Second

// Invoke implements [service.HTTP].
func (s *Service) Invoke(w http.ResponseWriter, r *http.Request, c service.Call) error {
	of, err := chosen(c.Token)
	if err != nil {
		return err
	}
	a, err := authorityOf(c.Token, of)
	if err != nil {
		return err
	}
	if a.held == 0 {
		return tinycloud.Refuse(tinycloud.ErrUnauthorized, "No supported sql capabilities found")
	}
	q, err := readRequest(r)
	if err != nil {
		return err
	}
	if err := a.allow(of, &q); err != nil {
		return err
	}
	if len(of.path) > request.MaxSubject {
		return tinycloud.Refuse(tinycloud.ErrInvalid, "The path of a database has at most %d bytes", request.MaxSubject)
	}
	d, err := s.acquire(of)
	if err != nil {
		return err
	}
	defer s.release(d)
	switch q.Action {
	case request.Export:
		return s.export(w, r, c, a, d)
	case request.Outcome:
		return s.outcome(w, r, c, a, d, q.Epoch)
	}
	writes, err := gate.Check(&q, a.held, a.facts)
	if err != nil {
		return err
	}
	if writes {
		return s.write(w, r, c, a, d, &q)
	}
	if err := c.Store.Burn(r.Context(), c.Token); err != nil {
		return err
	}
	answer, err := s.query(r.Context(), c.Store, d, a, &q)
	if err != nil {
		return err
	}
	return send(w, answer)
}

func readRequest(r *http.Request) (request.Request, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, request.MaxBody+1))
	if err != nil {
		return request.Request{}, fmt.Errorf("body: %w", errors.Join(tinycloud.ErrInvalid, err))
	}
	return request.Parse(body)
}

// allow judges what can be judged of a request without the database, and looks up the statement that it names.
func (a *authority) allow(of name, q *request.Request) error {
	if a.held&gate.Admin == 0 && len(a.constrained) == 0 {
		texts := q.Schema
		for _, s := range q.Statements {
			texts = append(texts[:len(texts):len(texts)], s.SQL)
		}
		for _, sql := range texts {
			if s, err := gate.Inspect(sql); err == nil && s.Kind == gate.Pragma {
				return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Unauthorized Action: %s/sql/%s / %sadmin", of.space, of.path, prefix)
			}
		}
	}
	return a.resolve(q)
}

func send(w http.ResponseWriter, answer []byte) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, err := w.Write(answer)
	return err
}

// write answers a request that may write. A token whose request did nothing is burned: it was answered.
func (s *Service) write(w http.ResponseWriter, r *http.Request, c service.Call, a authority, d *database, q *request.Request) error {
	out, done, err := d.write(r.Context(), c, a, q)
	s.metrics.answered(out, err)
	if done {
		if err := c.Store.Burn(r.Context(), c.Token); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if !out.epoch.IsZero() {
		w.Header().Set(EpochHeader, out.epoch.EpochID())
	}
	return send(w, out.answer)
}

// view calls f with the database as the log has it now, or one without content if nobody wrote it.
func (s *Service) view(ctx context.Context, store service.Store, d *database, f func(*engine.View) error) error {
	for n := 0; ; n++ {
		err := s.viewOnce(ctx, store, d, f, n > 0)
		moved := errors.Is(err, engine.ErrMoved)
		if !moved && !errors.Is(err, engine.ErrLost) && !errors.Is(err, engine.ErrBroken) {
			return err
		}
		if n == attempts {
			return fmt.Errorf("%w: %w", tinycloud.ErrUnavailable, err)
		}
		if moved {
			continue
		}
		if err := d.enter(ctx); err != nil {
			return err
		}
		err = d.anew(errors.Is(err, engine.ErrLost))
		d.leave()
		if err != nil {
			return fmt.Errorf("%w: %w", tinycloud.ErrUnavailable, err)
		}
	}
}

// viewOnce calls f with the files as they are, if all is in them that was answered before it was called. Else it follows the
// log first. With apart it does so at once, and f works on a copy that is made before they can go back: they did before it had
// begun.
func (s *Service) viewOnce(ctx context.Context, store service.Store, d *database, f func(*engine.View) error, apart bool) error {
	now, err := d.now(ctx, store)
	if err != nil {
		return err
	}
	if now.n == 0 {
		db, err := s.nobodys()
		if err != nil {
			return err
		}
		return f(db.View())
	}
	if !apart {
		if seen, err := d.glance(ctx, store, now, f); seen || err != nil {
			return err
		}
	}
	if err := d.enter(ctx); err != nil {
		return err
	}
	leave := sync.OnceFunc(d.leave)
	defer leave()
	if err := d.follow(ctx, store); err != nil {
		return err
	}
	d.files.RLock() // before another has the turn
	defer d.files.RUnlock()
	v := d.db.View()
	if apart {
		return f(v.Apart(leave))
	}
	leave()
	return f(v)
}

// glance calls f with the files as they are, if all that counts of a state of the history is in them.
func (d *database) glance(ctx context.Context, store service.Store, now state, f func(*engine.View) error) (seen bool, err error) {
	settled, err := d.settled(ctx, store, now)
	if err != nil {
		return false, err
	}
	d.files.RLock()
	defer d.files.RUnlock()
	if d.db == nil {
		return false, nil
	}
	v := d.db.View() // before it is asked what is shown: that is forgotten before the files go back
	if ok, err := d.shows(ctx, store, now, settled); !ok || err != nil {
		return false, err
	}
	return true, f(v)
}

// now is what the history says of the database.
func (d *database) now(ctx context.Context, store service.Store) (state, error) {
	b, err := store.ServiceState(ctx, d.of.space, request.Service, d.of.path)
	if err != nil {
		return state{}, err
	}
	return decodeState(b)
}

var errNoDatabase = tinycloud.Refuse(tinycloud.ErrNotFound, "Database not found")

// export answers with the database as a file.
func (s *Service) export(w http.ResponseWriter, r *http.Request, c service.Call, a authority, d *database) error {
	if err := a.held.PermitExport(); err != nil {
		return err
	}
	if a.facts != nil {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "Permission denied: An export can't keep to sqlCaveats")
	}
	if err := c.Store.Burn(r.Context(), c.Token); err != nil {
		return err
	}
	if now, err := d.now(r.Context(), c.Store); err != nil {
		return err
	} else if now.n == 0 {
		return errNoDatabase
	}
	return s.asFile(r.Context(), c.Store, d, func(f io.Reader, size int64) error {
		w.Header().Set("Content-Type", "application/x-sqlite3")
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, err := io.Copy(w, f)
		return err
	})
}
