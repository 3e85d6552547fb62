package sql

import (
	"context"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Hooks are told which tables a write changed, when it has run with success for the first time: before its effect is
// committed to the files, or with the write itself, so that a process that is killed does not forget it. The history
// keeps what was told, so that it is told once. Source: docs/replication.md, "What hooks are told".

var _ service.Teller = (*Service)(nil)

// Paths implements [service.Teller]: hooks name a table behind the last segment of its database's path, as the reference
// does, and may be asked for by the whole of it.
func (*Service) Paths(subject, table string) (path, also string) {
	whole := subject + "/" + table
	return subject[strings.LastIndexByte(subject, '/')+1:] + "/" + table, whole
}

// newsOf is what a write is to be told of; without tables it is none.
func newsOf(at service.Spot, event tinycloud.Hash, t *token.Token, r engine.Result) (n service.News, ok bool) {
	if r.Err != nil || !r.Changed || len(r.Touched) == 0 {
		return n, false
	}
	return service.News{Spot: at, Event: event, Actor: t.Signer, Ability: prefix + "write", What: r.Touched}, true
}

// telling is what writes that run now changed, until it is told.
type telling struct {
	d     *database
	store service.Store
	since int64
	of    map[tinycloud.Hash]told
	news  []service.News
}

// told is where a write stands, and by whose token.
type told struct {
	at    service.Spot
	token *token.Token
}

// telling returns what tells of the writes of a step; nil if nobody listens, or if they don't run where they count.
func (d *database) telling(store service.Store, s step) *telling {
	if !d.tells {
		return nil
	}
	since, ok := store.Listened(d.of.space, request.Service)
	if !ok {
		return nil
	}
	t := &telling{d: d, store: store, since: since, of: map[tinycloud.Hash]told{}}
	for i, e := range s.events {
		if p := s.places[i]; p.first.Row > since {
			t.of[p.key] = told{p.first, e.Token}
		}
	}
	if len(t.of) == 0 {
		return nil
	}
	return t
}

func (t *telling) verdict(op *engine.Op, r engine.Result) {
	t.d.verdict(op, r)
	at, ok := t.of[op.Key]
	if !ok {
		return
	}
	if n, ok := newsOf(at.at, op.Event, at.token, r); ok {
		t.news = append(t.news, n)
	}
}

// tell tells what has run, before it is committed.
func (t *telling) tell(ctx context.Context) error {
	news := t.news
	t.news = nil
	if len(news) == 0 {
		return nil
	}
	return t.store.Tell(ctx, t.d.of.space, request.Service, t.d.of.path, news)
}
