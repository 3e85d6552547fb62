package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// rows are the stored webhooks and deliveries, beside the history.
type rows struct{ capstore.Beside }

func (h *Hooks) rows() rows { return rows{h.o.Store.Beside()} }

// registered is somebody's wish to be told of changes by HTTP requests.
type registered struct {
	ID         string
	Space      tinycloud.SpaceID
	Subscriber tinycloud.Principal // who signed the registration
	Service    string
	Prefix     string   // of paths, by segment; "" for all
	Abilities  []string // none: all
	URL        string
	Secret     []byte // as the caller encrypted it
	Proofs     []tinycloud.Hash
	Active     bool
	Created    time.Time
	Cursor     capstore.Cursor // changes up to it have their deliveries
}

// delivery is a request that a webhook is still to get.
type delivery struct {
	Number  int64 // of the row; 0 before it is stored
	Webhook string
	Event   string // id of the event
	Body    []byte
	Tries   int // made so far
	Due     time.Time
}

// add stores a webhook, durable when it returns. When the Space has most active ones already it is
// refused with class [tinycloud.ErrBusy].
func (r rows) add(ctx context.Context, w registered, most int) error {
	abilities, err := json.Marshal(w.Abilities)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	proofs := make([]byte, 0, len(w.Proofs)*len(tinycloud.Hash{}))
	for _, id := range w.Proofs {
		proofs = append(proofs, id[:]...)
	}
	return r.Update(ctx, true, func(t capstore.BesideTx) error {
		var have int
		if _, err := t.One([]any{&have}, "SELECT count(*) FROM webhooks WHERE space = ? AND active = 1", w.Space.String()); err != nil {
			return err
		}
		if have >= most {
			return tinycloud.Refuse(tinycloud.ErrBusy, "too many webhooks for this space")
		}
		t.Tell()
		return t.Add(capstore.Insert{Into: "webhooks", Columns: "id space subscriber service prefix abilities url secret proofs active created c_epoch c_late c_index"},
			w.ID, w.Space.String(), string(w.Subscriber), w.Service, t.Text(w.Prefix), string(abilities), w.URL, w.Secret, proofs, true, w.Created.UnixMilli(), w.Cursor.Epoch, w.Cursor.Late, int64(w.Cursor.Index))
	})
}

// all returns all webhooks of this node, the oldest first.
func (r rows) all(ctx context.Context) ([]registered, error) {
	var out []registered
	err := r.Each(ctx, func(scan func(...any) error) error {
		var w registered
		var space, abilities string
		var proofs []byte
		var created int64
		err := scan(&w.ID, &space, &w.Subscriber, &w.Service, &w.Prefix, &abilities, &w.URL, &w.Secret, &proofs, &w.Active, &created,
			&w.Cursor.Epoch, &w.Cursor.Late, &w.Cursor.Index)
		if err != nil {
			return err
		}
		if w.Space, err = tinycloud.ParseSpaceID(space); err != nil {
			return fmt.Errorf("webhook %s: damaged row: %v: %w", w.ID, err, tinycloud.ErrUnavailable)
		}
		if err := json.Unmarshal([]byte(abilities), &w.Abilities); err != nil {
			return fmt.Errorf("webhook %s: damaged row: %v: %w", w.ID, err, tinycloud.ErrUnavailable)
		}
		for ; len(proofs) >= len(tinycloud.Hash{}); proofs = proofs[len(tinycloud.Hash{}):] {
			w.Proofs = append(w.Proofs, tinycloud.Hash(proofs))
		}
		w.Created = time.UnixMilli(created).UTC()
		out = append(out, w)
		return nil
	}, `SELECT id, space, subscriber, service, prefix, abilities, url, secret, proofs, active, created, c_epoch, c_late, c_index
		FROM webhooks ORDER BY created, id`)
	return out, err
}

// some reports whether a Space has active webhooks of a service.
func (r rows) some(ctx context.Context, space tinycloud.SpaceID, service string) (bool, error) {
	var one int
	return r.One(ctx, []any{&one}, "SELECT 1 FROM webhooks WHERE space = ? AND service = ? AND active = 1 LIMIT 1", space.String(), service)
}

// remove forgets a webhook and what it was to be told. That it is unknown is no error.
func (r rows) remove(ctx context.Context, id string) error {
	return r.Update(ctx, false, func(t capstore.BesideTx) error {
		if err := t.Exec("DELETE FROM deliveries WHERE webhook = ?", id); err != nil {
			return err
		}
		t.Tell()
		return t.Exec("DELETE FROM webhooks WHERE id = ?", id)
	})
}

// end makes a webhook inactive and drops its deliveries.
func (r rows) end(ctx context.Context, id string) error {
	return r.Update(ctx, false, func(t capstore.BesideTx) error {
		if err := t.Exec("DELETE FROM deliveries WHERE webhook = ?", id); err != nil {
			return err
		}
		return t.Exec("UPDATE webhooks SET active = 0 WHERE id = ?", id)
	})
}

// enqueue stores deliveries of a webhook together with the cursor they were found up to, so that each
// change gets one. Beyond most deliveries the oldest are dropped; it returns how many were. A webhook that
// was removed gets none.
func (r rows) enqueue(ctx context.Context, webhook string, ds []delivery, upTo capstore.Cursor, most int) (dropped int, err error) {
	err = r.Update(ctx, false, func(t capstore.BesideTx) error {
		dropped = 0
		var have int
		if ok, err := t.One([]any{&have}, "SELECT 1 FROM webhooks WHERE id = ? AND active = 1", webhook); err != nil || !ok {
			return err
		}
		err := t.Exec("UPDATE webhooks SET c_epoch = ?, c_late = ?, c_index = ? WHERE id = ?", upTo.Epoch, upTo.Late, int64(upTo.Index), webhook)
		if err != nil || len(ds) == 0 {
			return err
		}
		for _, d := range ds {
			err := t.Add(capstore.Insert{Into: "deliveries", Columns: "webhook event body tries due"}, webhook, d.Event, d.Body, 0, d.Due.UnixMilli())
			if err != nil {
				return err
			}
		}
		if _, err := t.One([]any{&have}, "SELECT count(*) FROM deliveries WHERE webhook = ?", webhook); err != nil || have <= most {
			return err
		}
		dropped = have - most
		var last int64 // of those that are dropped
		if _, err := t.One([]any{&last}, "SELECT number FROM deliveries WHERE webhook = ? ORDER BY number LIMIT 1 OFFSET ?", webhook, dropped-1); err != nil {
			return err
		}
		return t.Exec("DELETE FROM deliveries WHERE webhook = ? AND number <= ?", webhook, last)
	})
	return dropped, err
}

// deliveries returns up to limit deliveries of a webhook, the first due first, whether due or not.
func (r rows) deliveries(ctx context.Context, webhook string, limit int) ([]delivery, error) {
	var out []delivery
	err := r.Each(ctx, func(scan func(...any) error) error {
		d := delivery{Webhook: webhook}
		var due int64
		if err := scan(&d.Number, &d.Event, &d.Body, &d.Tries, &due); err != nil {
			return err
		}
		d.Due = time.UnixMilli(due)
		out = append(out, d)
		return nil
	}, "SELECT number, event, body, tries, due FROM deliveries WHERE webhook = ? ORDER BY due, number LIMIT ?", webhook, limit)
	return out, err
}

// settle forgets the deliveries that are done and stores the tries and due times of the others.
func (r rows) settle(ctx context.Context, done []int64, again []delivery) error {
	return r.Update(ctx, false, func(t capstore.BesideTx) error {
		for _, number := range done {
			if err := t.Exec("DELETE FROM deliveries WHERE number = ?", number); err != nil {
				return err
			}
		}
		for _, d := range again {
			if err := t.Exec("UPDATE deliveries SET tries = ?, due = ? WHERE number = ?", d.Tries, d.Due.UnixMilli(), d.Number); err != nil {
				return err
			}
		}
		return nil
	})
}
