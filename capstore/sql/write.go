package sql

import (
	"context"
	"errors"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// written is what came of a request that may write.
type written struct {
	answer []byte
	epoch  tinycloud.Hash // of the event that it made; zero for none
}

// errRaced is the error of a plan for a database to which operations have come since it was followed.
var errRaced = errors.New("operations have come meanwhile")

// retries is how often a request is tried again because other operations came. Then it is made an operation all the same:
// its answer is tentative anyway.
const retries = 2

// write carries a request out that may write. The error is a refusal, or says that the machine failed. done says that it
// was executed, and made nothing.
func (d *database) write(ctx context.Context, c service.Call, a authority, q *request.Request) (w written, done bool, err error) {
	if err := d.enter(ctx); err != nil {
		return w, false, err
	}
	defer d.leave()
	if begins(c.Token).After(c.Store.Now().Add(slack)) {
		return w, false, tinycloud.Refuse(tinycloud.ErrUnauthorized, "Invocation lifetime exceeds server maximum")
	}
	for n := 0; ; n++ {
		w, done, err = d.writeOnce(ctx, c, a, q, n < retries)
		if !errors.Is(err, errRaced) {
			return w, done, err
		}
	}
}

func (d *database) writeOnce(ctx context.Context, c service.Call, a authority, q *request.Request, strict bool) (w written, done bool, err error) {
	if err := d.follow(ctx, c.Store, nil); err != nil {
		return w, false, err
	}
	t := &tried{op: engine.Op{Event: c.Token.ID, Now: c.Store.Now().UnixMilli(), Rules: engine.Newest, Request: q, Held: a.held, Facts: a.facts}}
	if d.at.last != nil {
		t.op.Now = max(t.op.Now, d.at.last.Written)
	}
	res, err := d.db.Try(ctx, &t.op)
	if err != nil {
		return w, false, d.unusable(err)
	}
	if res.Err != nil || !res.Changed {
		return written{answer: res.Answer}, true, errors.Join(res.Err, d.rollback())
	}
	o := request.Operation{Now: t.op.Now, Rules: t.op.Rules, Request: *q}
	if t.parts, err = o.Encode(d.of.path); err != nil {
		return w, true, errors.Join(err, d.rollback())
	}
	plan := service.Plan{Ops: t.parts}
	if plan.Grows, err = d.db.Size(ctx); err != nil {
		return w, false, errors.Join(err, d.rollback())
	}
	for _, b := range t.parts {
		plan.Grows += int64(len(b))
	}
	err = c.Store.Perform(ctx, service.Request{Token: c.Token, Service: request.Service, Adds: true, Parts: []service.Part{
		{Space: d.of.space, Plan: func(tx service.Tx) (service.Plan, error) { return plan, d.permit(tx, strict) }},
	}})
	if err != nil { // where it is not known whether it is durable, the log tells
		return w, false, errors.Join(err, d.rollback())
	}
	w.answer = res.Answer
	// It is durable: what fails from here on is made up for when the database is used next.
	if d.follow(context.WithoutCancel(ctx), c.Store, t) == nil && t.spot != nil {
		w.epoch = t.spot.At.Epoch
	}
	return w, false, nil
}

// permit judges whether a request may become an operation, in the transaction of the history.
func (d *database) permit(tx service.Tx, strict bool) error {
	if older, err := tx.Older(); err != nil {
		return err
	} else if older {
		return tinycloud.Refuse(tinycloud.ErrUnsupported, "SQL is not written while another host of the space is of a release without it")
	}
	if !strict {
		return nil
	}
	b, err := tx.State(d.of.path)
	if err != nil {
		return err
	}
	now, err := decodeState(b)
	if err == nil && now != d.at.at {
		err = errRaced
	}
	return err
}

// rollback takes back what was tried. If it can't, the files are opened again when they are needed.
func (d *database) rollback() error {
	if err := d.db.Rollback(); err != nil {
		return d.unusable(err)
	}
	return nil
}

// unusable has the files be opened again, and says that the request may be tried again.
func (d *database) unusable(err error) error {
	return errors.Join(tinycloud.Refuse(tinycloud.ErrUnavailable, "The database could not be used; retry the request"), err, d.anew(errors.Is(err, engine.ErrLost)))
}
