package capstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// A service may tell hooks itself what an operation changed, once it is carried out ([service.Teller]), while somebody
// listens to its Space. What it told is stored, so that it is told once whatever else becomes of the operation. Source:
// docs/replication.md, "What hooks are told".

const (
	// listenedFor is how long what happens in a Space is told after the last stream has gone: clients come again.
	listenedFor = time.Hour
	// toldFrom is the first number in late of what a service told of an operation's event; ops of an event are fewer.
	toldFrom = 1 << 16
	// maxParts is how many things are told of an event, and maxWhat how long their names may be. What was told counts in no
	// quota: a short request whose triggers reach many tables may not leave many times its own size.
	maxParts = 32
	maxWhat  = 255
)

// listeners are who wants to be told.
type listeners struct {
	mu sync.Mutex
	of map[listenedTo]*listened // guarded by mu
}

type listenedTo struct {
	space   tinycloud.SpaceID
	service string
}

type listened struct {
	count   int   // of those of this process
	lasting int   // of them, those that outlive it
	since   int64 // operations of epochs up to this row are not told
	until   int64 // when it ends, if there are none: in unix milliseconds
}

// forEver is the end of what lasts.
const forEver = math.MaxInt64

// learnListened reads who listened before the process began.
func (s *Store) learnListened(ctx context.Context, q querier) error {
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	s.listeners.of = map[listenedTo]*listened{}
	return q.Each(ctx, func(scan db.Scan) error {
		var text string
		var of listenedTo
		var l listened
		if err := scan(&text, &of.service, &l.since, &l.until); err != nil {
			return err
		}
		var err error
		if of.space, err = tinycloud.ParseSpaceID(text); err == nil {
			s.listeners.of[of] = &l
		}
		return err
	}, "SELECT p.space, l.service, l.since, l.until FROM listened l JOIN spaces p ON p.sid = l.sid WHERE l.until > ?", s.o.Now().UnixMilli())
}

// tells is the service if it tells hooks itself what becomes of operations.
func (s *Store) tells(name string) (service.Teller, bool) {
	t, ok := s.services[name].(service.Teller)
	return t, ok
}

func (s *Store) tellsItself(name string) bool {
	_, ok := s.tells(name)
	return ok
}

// Listen says that somebody wants to be told what a service changes in a Space, from now on: of operations that come
// after it returns. Lasting says that he will want so after a restart too. [Store.Unlisten] is its end.
func (s *Store) Listen(ctx context.Context, space tinycloud.SpaceID, name string, lasting bool) error {
	if _, ok := s.tells(name); !ok {
		return nil
	}
	of := listenedTo{space, name}
	if s.listenAlso(of, lasting) {
		return nil
	}
	now := s.o.Now()
	var l listened
	err := s.do(ctx, func(t *tx) (err error) {
		l, err = t.listen(of, now, lasting)
		return err
	})
	if err != nil {
		return err
	}
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	h := s.listeners.of[of]
	if h == nil || !h.live(now) {
		h = &l
		s.listeners.of[of] = h
	}
	h.until = max(h.until, l.until)
	h.add(1, lasting)
	return nil
}

// listenAlso counts another one if others do already, or did a moment ago: what is stored is good for a while then.
func (s *Store) listenAlso(of listenedTo, lasting bool) bool {
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	h := s.listeners.of[of]
	if h == nil || lasting && h.until != forEver || h.count == 0 && h.until < s.o.Now().Add(listenedFor*3/4).UnixMilli() {
		return false
	}
	h.add(1, lasting)
	return true
}

func (l *listened) add(by int, lasting bool) {
	if l.count += by; lasting {
		l.lasting += by
	}
}

func (l *listened) live(now time.Time) bool { return l.count > 0 || l.until > now.UnixMilli() }

// Unlisten ends what [Store.Listen] began.
func (s *Store) Unlisten(space tinycloud.SpaceID, name string, lasting bool) {
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	if h := s.listeners.of[listenedTo{space, name}]; h != nil {
		h.add(-1, lasting)
	}
}

// listen stores that somebody listens, and until when. A Space that is not hosted is listened to in memory alone.
func (t *tx) listen(of listenedTo, now time.Time, lasting bool) (l listened, err error) {
	if _, err := t.one([]any{&l.since}, "SELECT coalesce(max(eid), 0) FROM epochs"); err != nil {
		return l, err
	}
	l.until = now.Add(listenedFor).UnixMilli()
	if lasting {
		l.until = forEver
	}
	sid, err := t.s.sid(t.ctx, of.space)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return l, nil
	} else if err != nil {
		return l, err
	}
	var since, until int64
	known, err := t.one([]any{&since, &until}, "SELECT since, until FROM listened WHERE sid = ? AND service = ?", sid, of.service)
	if err != nil {
		return l, err
	}
	if known && until > now.UnixMilli() {
		l.since, l.until = since, max(l.until, until)
	}
	return l, t.saveListened(sid, of.service, l)
}

func (t *tx) saveListened(sid int64, name string, l listened) error {
	return t.add(db.Insert{Into: "listened", Columns: "sid service since until", Key: "sid service", Replace: true}, sid, name, l.since, l.until)
}

// Listening stores for how long what is told goes on being told. It is called every few minutes; lasts says whether a Space
// has somebody who wants to be told of a service after a restart too, in whatever process.
func (s *Store) Listening(ctx context.Context, lasts func(space tinycloud.SpaceID, name string) (bool, error)) error {
	s.listeners.mu.Lock()
	all := map[listenedTo]listened{}
	now := s.o.Now()
	for of, l := range s.listeners.of {
		if !l.live(now) {
			delete(s.listeners.of, of)
		} else if l.count > 0 || l.until == forEver {
			all[of] = *l
		}
	}
	s.listeners.mu.Unlock()
	var failed error
	for of, l := range all {
		lasting, err := lasts(of.space, of.service)
		until := l.until
		if err == nil {
			until, err = s.prolong(ctx, of, l, lasting || l.lasting > 0, now)
		}
		failed = errors.Join(failed, err)
		s.listeners.mu.Lock()
		if h := s.listeners.of[of]; err == nil && h != nil && h.lasting == l.lasting {
			h.until = until
		}
		s.listeners.mu.Unlock()
	}
	return failed
}

// prolong stores until when a Space is listened to.
func (s *Store) prolong(ctx context.Context, of listenedTo, l listened, lasting bool, now time.Time) (until int64, err error) {
	if lasting && l.until == forEver {
		return l.until, nil
	}
	sid, err := s.sid(ctx, of.space)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return l.until, nil
	} else if err != nil {
		return l.until, err
	}
	if l.until = now.Add(listenedFor).UnixMilli(); lasting {
		l.until = forEver
	}
	return l.until, s.do(ctx, func(t *tx) error { return t.saveListened(sid, of.service, l) })
}

// Listened reports whether somebody wants to be told what a service changes in a Space, by operations of epochs behind a row.
func (s *Store) Listened(space tinycloud.SpaceID, name string) (since int64, ok bool) {
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	h := s.listeners.of[listenedTo{space, name}]
	if h == nil || !h.live(s.o.Now()) {
		return 0, false
	}
	return h.since, true
}

// ListenedSpaces are those in which somebody wants to be told.
func (s *Store) ListenedSpaces(name string) (all []tinycloud.SpaceID) {
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	for of, l := range s.listeners.of {
		if of.service == name && l.live(s.o.Now()) {
			all = append(all, of.space)
		}
	}
	return all
}

// States calls f with what a service has stored for the subjects of a Space. f must not use the store.
func (s *Store) States(ctx context.Context, space tinycloud.SpaceID, name string, f func(subject string, state []byte)) error {
	sid, err := s.sid(ctx, space)
	if err != nil {
		return err
	}
	return s.db.Read.Each(ctx, func(scan db.Scan) error {
		var about, state []byte
		err := scan(&about, &state)
		if err == nil {
			f(string(about), state)
		}
		return err
	}, "SELECT subject, state FROM states WHERE sid = ? AND service = ?", sid, name)
}

// toldAtOnce is of how many events it is asked at once what was told.
const toldAtOnce = 64

// Tell tells hooks what operations on a subject changed, in the order given, if somebody listens and it was not told
// before. It is durable when it returns.
func (s *Store) Tell(ctx context.Context, space tinycloud.SpaceID, name, about string, all []service.News) error {
	since, ok := s.Listened(space, name)
	if !ok {
		return nil
	}
	sid, err := s.sid(ctx, space)
	if err != nil {
		return err
	}
	var fresh []service.News
	for some := range slices.Chunk(all, toldAtOnce) {
		told, err := toldOf(ctx, s.db.Read, sid, some)
		if err != nil {
			return err
		}
		for _, n := range some {
			if n.Spot.Row > since && len(missing(told, about, n)) > 0 {
				fresh = append(fresh, n)
			}
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(space)
		if err != nil {
			return err
		}
		return t.tellOf(sp, name, about, fresh)
	})
}

// Tell implements [service.Tx].
func (x *inSpace) Tell(about string, n service.News) error {
	since, ok := x.t.s.Listened(x.sp.id, x.service)
	if !ok || n.Spot.Row <= since {
		return nil
	}
	return x.t.tellOf(x.sp, x.service, about, []service.News{n})
}

// toldBefore are parts of events that were told.
type toldBefore map[tinycloud.Hash]map[tinycloud.Hash]bool

func toldOf(ctx context.Context, q querier, sid int64, news []service.News) (toldBefore, error) {
	told, args := toldBefore{}, []any{sid}
	for i := range toldAtOnce {
		args = append(args, news[min(i, len(news)-1)].Event[:])
	}
	err := q.Each(ctx, func(scan db.Scan) error {
		var event, part []byte
		if err := scan(&event, &part); err != nil {
			return err
		}
		of := tinycloud.Hash(event)
		if told[of] == nil {
			told[of] = map[tinycloud.Hash]bool{}
		}
		told[of][tinycloud.Hash(part)] = true
		return nil
	}, "SELECT event, part FROM told WHERE sid = ? AND event IN (?"+strings.Repeat(", ?", toldAtOnce-1)+")", args...)
	return told, err
}

// partOf names what is told of an event.
func partOf(about, what string) tinycloud.Hash {
	return tinycloud.Sum(fmt.Appendf(nil, "%d:%s%s", len(about), about, what))
}

// missing is what of news was not told, and may be, each once.
func missing(told toldBefore, about string, n service.News) (out []string) {
	before := len(told[n.Event])
	for _, what := range n.What {
		if before+len(out) == maxParts {
			break
		}
		if len(what) <= maxWhat && !told[n.Event][partOf(about, what)] && !slices.Contains(out, what) {
			out = append(out, what)
		}
	}
	return out
}

func (t *tx) tellOf(sp *space, name, about string, all []service.News) error {
	teller, ok := t.s.tells(name)
	if !ok {
		return fmt.Errorf("service %q tells nothing: %w", name, tinycloud.ErrInvalid)
	}
	var last int64
	if _, err := t.one([]any{&last}, "SELECT max(eid) FROM epochs"); err != nil {
		return err
	}
	for some := range slices.Chunk(all, toldAtOnce) {
		told, err := toldOf(t.ctx, t, sp.sid, some)
		if err != nil {
			return err
		}
		for _, n := range some {
			if err := t.tellEvent(sp, teller, about, n, told, last); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellEvent tells what was not told of an event.
func (t *tx) tellEvent(sp *space, teller service.Teller, about string, n service.News, told toldBefore, last int64) error {
	what := missing(told, about, n)
	if len(what) == 0 {
		return nil
	}
	var ms int64
	if _, err := t.one([]any{&ms}, "SELECT at FROM entries WHERE eid = ? AND ord = 0", n.Spot.Row); err != nil {
		return err
	}
	if told[n.Event] == nil {
		told[n.Event] = map[tinycloud.Hash]bool{}
	}
	for _, x := range what {
		part := partOf(about, x)
		number := len(told[n.Event])
		told[n.Event][part] = true
		ord, err := t.insert(db.Insert{Into: "late", Columns: "sid after eid idx n", ID: "ord"}, sp.sid, last, n.Spot.Row, int64(n.Spot.At.Index), toldFrom+number)
		if err != nil {
			return err
		}
		err = t.add(db.Insert{Into: "told", Columns: "ord sid event part what"}, ord, sp.sid, n.Event[:], part[:], []byte(x))
		if err != nil {
			return err
		}
		c := Change{
			Cursor: Cursor{Epoch: last, Late: ord}, Space: sp.id, Epoch: n.Spot.At.Epoch, Index: toldIndex(int64(n.Spot.At.Index), number),
			Service: teller.Name(), Ability: n.Ability, Actor: n.Actor, At: at(ms).UTC(),
		}
		c.Key, c.Also = teller.Paths(about, x)
		t.announce(sp, c)
	}
	return nil
}

// toldIndex is the index of a change that a service told: by the event's in its epoch, and by what else was told of it.
func toldIndex(event int64, number int) int { return int(event)*maxParts + number }

// told reads what services told, as [changeReader.later] reads other changes.
func (r *changeReader) told(ctx context.Context, to int64) (out []Change, err error) {
	args := append([]any{r.from.Epoch, r.from.Epoch, r.from.Late, to}, r.args...)
	err = r.tx.Each(ctx, func(scan db.Scan) error {
		var what []byte
		var idx, number int64
		row, err := r.scan(scan, &what, &idx, &number)
		if err != nil {
			return err
		}
		row.Index, row.Cursor = toldIndex(idx, int(number-toldFrom)), Cursor{Epoch: row.after.Int64, Late: row.ord.Int64}
		c, err := r.finish(row)
		if teller, ok := r.s.tells(c.Service); ok && err == nil {
			c.Key, c.Also = teller.Paths(c.Key, string(what))
			out = append(out, c)
		}
		return err
	}, changeColumns+`, d.what, l.idx, l.n FROM late l JOIN told d ON d.ord = l.ord
		JOIN ops o ON o.eid = l.eid AND o.idx = l.idx AND o.n = 0 JOIN events e ON e.eid = o.eid AND e.idx = o.idx
		JOIN epochs p ON p.eid = l.eid JOIN entries n ON n.eid = p.eid AND n.ord = 0
		WHERE l.after >= 0 AND (l.after > ? OR (l.after = ? AND l.ord > ?)) AND l.after <= ?`+
		r.hosted("l.sid")+" ORDER BY l.after, l.ord LIMIT ?", append(args, r.limit+1)...)
	return out, err
}

// cursorOfTold is [Store.CursorOf] of what a service told.
func (s *Store) cursorOfTold(ctx context.Context, sid int64, epoch tinycloud.Hash, index int) (c Cursor, ok bool, err error) {
	ok, err = s.db.Read.One(ctx, []any{&c.Epoch, &c.Late}, `SELECT l.after, l.ord FROM epochs p JOIN late l ON l.eid = p.eid JOIN told d ON d.ord = l.ord
		WHERE p.sid = ? AND p.id = ? AND l.idx = ? AND l.n = ?`, sid, epoch[:], int64(index/maxParts), int64(toldFrom+index%maxParts))
	return c, ok, err
}
