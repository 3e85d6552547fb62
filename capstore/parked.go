package capstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// Bounds of what is parked in a Space (docs/replication.md, "Parking"). Beyond, an entry is only noted, once per
// host: its sender keeps it.
const (
	maxParked      = 10_000
	maxParkedBytes = 64 << 20
	maxNoted       = 1000 // hosts
	unparkAtOnce   = 256
	unparkEvery    = time.Minute // at least, for clocks that are set
)

// errHeld says that an entry is parked: it is durable, and counts when it is due.
var errHeld = errors.New("entry is parked")

// parking is what of a Space is parked.
type parking struct {
	entries, bytes, noted int64
}

// parkedBundle is how a parked entry is stored.
type parkedBundle struct {
	Entry    []byte         `cbor:"1,keyasint"`
	Sig      []byte         `cbor:"2,keyasint"`
	Epoch    []byte         `cbor:"3,keyasint"`
	Events   [][]byte       `cbor:"4,keyasint"`
	Ops      [][]byte       `cbor:"5,keyasint"`
	Values   [][]byte       `cbor:"6,keyasint"`
	Imported []parkedImport `cbor:"7,keyasint"`
}

type parkedImport struct {
	At     int64    `cbor:"1,keyasint"`
	Epoch  []byte   `cbor:"2,keyasint"`
	Events [][]byte `cbor:"3,keyasint"`
	Ops    [][]byte `cbor:"4,keyasint"`
}

func encodeParked(b hostlog.Bundle) ([]byte, error) {
	p := parkedBundle{Entry: b.Entry.Encode(), Sig: b.Sig[:], Epoch: b.Epoch, Events: b.Events, Ops: b.Ops}
	for _, v := range b.Values {
		p.Values = append(p.Values, v.Bytes)
	}
	for _, im := range b.Imported {
		p.Imported = append(p.Imported, parkedImport(im))
	}
	return cbor.Marshal(p)
}

func decodeParked(stored []byte) (b hostlog.Bundle, err error) {
	var p parkedBundle
	if err := cbor.Unmarshal(stored, &p); err != nil {
		return b, fmt.Errorf("parked entry: %v: %w", err, tinycloud.ErrUnavailable)
	}
	if b.Entry, err = hostlog.DecodeEntry(p.Entry); err != nil {
		return b, err
	}
	copy(b.Sig[:], p.Sig)
	b.Epoch, b.Events, b.Ops = p.Epoch, p.Events, p.Ops
	for _, v := range p.Values {
		b.Values = append(b.Values, hostlog.Value{Hash: tinycloud.Sum(v), Bytes: v})
	}
	for _, im := range p.Imported {
		b.Imported = append(b.Imported, hostlog.Imported(im))
	}
	return b, nil
}

// enter places an entry of a peer, or parks it: when it is of the future, or follows on what is parked.
func (t *tx) enter(sp *space, p *hostlog.Parsed) error {
	err := t.place(sp, p)
	if !errors.Is(err, errGap) && !errors.Is(err, errParked) {
		return err
	}
	held, due, behind, failed := t.behind(sp, p)
	if failed != nil || held {
		return firstOf(failed, errHeld)
	}
	if errors.Is(err, errParked) {
		due, behind = max(due, p.Entry.At), true
	}
	if !behind {
		return err
	}
	return t.park(sp, p, due)
}

// behind reports whether an entry is parked already, or builds on such entries, and when the last of those is
// due.
func (t *tx) behind(sp *space, p *hostlog.Parsed) (held bool, due int64, behind bool, err error) {
	e := p.Entry
	var one int
	held, err = t.one([]any{&one}, "SELECT 1 FROM parked WHERE sid = ? AND host = ? AND n = ? AND digest = ? AND bytes IS NOT NULL", sp.sid, e.Host[:], e.N, p.Digest[:])
	if held || err != nil {
		return held, 0, false, err
	}
	look := func(query string, args ...any) {
		var d int64
		ok, failed := t.one([]any{&d}, query, args...)
		err = firstOf(err, failed)
		if ok {
			due, behind = max(due, d), true
		}
	}
	if e.N > 0 {
		look("SELECT due FROM parked WHERE sid = ? AND host = ? AND n = ? AND digest = ?", sp.sid, e.Host[:], e.N-1, e.Prev[:])
	}
	for _, parent := range p.DecodedEpoch.Parents {
		look("SELECT min(due) FROM parked WHERE sid = ? AND epoch = ? HAVING count(*) > 0", sp.sid, parent[:])
	}
	return false, max(due, e.At), behind, err
}

// park stores an entry until it is due.
func (t *tx) park(sp *space, p *hostlog.Parsed, due int64) error {
	e := p.Entry
	b, err := encodeParked(p.Bundle)
	if err != nil {
		return fmt.Errorf("parked entry: %v: %w", err, tinycloud.ErrInvalid)
	}
	if sp.parked.entries >= maxParked || sp.parked.bytes+int64(len(b)) > min(maxParkedBytes, t.s.historyLeft(sp)) {
		return t.noteParked(sp, p, due)
	}
	t.touch(sp).Parked++
	sp.parked.entries++
	sp.parked.bytes += int64(len(b))
	err = t.exec("DELETE FROM parked WHERE sid = ? AND host = ? AND n = ? AND digest = ?", sp.sid, e.Host[:], e.N, p.Digest[:])
	if err == nil {
		err = t.add(intoParked, sp.sid, e.Host[:], e.N, e.At, due, p.Digest[:], e.Epoch[:], b)
	}
	return firstOf(err, errHeld)
}

var intoParked = db.Insert{Into: "parked", Columns: "sid host n at due digest epoch bytes"}

// noteParked notes an entry that there is no room for: of each host the first.
func (t *tx) noteParked(sp *space, p *hostlog.Parsed, due int64) error {
	var n uint64
	e := p.Entry
	ok, err := t.one([]any{&n}, "SELECT n FROM parked WHERE sid = ? AND host = ? AND bytes IS NULL", sp.sid, e.Host[:])
	switch {
	case err != nil:
		return err
	case ok && n <= e.N, !ok && sp.parked.noted >= maxNoted:
		return errParked
	}
	t.touch(sp)
	if ok {
		err = t.exec("DELETE FROM parked WHERE sid = ? AND host = ? AND bytes IS NULL", sp.sid, e.Host[:])
	} else {
		sp.parked.noted++
	}
	if err == nil {
		err = t.add(intoParked, sp.sid, e.Host[:], e.N, e.At, due, p.Digest[:], e.Epoch[:], nil)
	}
	return firstOf(err, errParked)
}

// Unpark adds the parked entries that are due. It returns when the next is, zero for never. [Store.Run] calls it
// in time.
func (s *Store) Unpark(ctx context.Context) (next time.Time, err error) {
	for {
		var sid, due int64
		ok, err := s.db.Read.One(ctx, []any{&sid, &due}, "SELECT sid, due FROM parked ORDER BY due, ord LIMIT 1")
		if err != nil || !ok {
			return time.Time{}, err
		}
		ripe := s.o.Now().Add(judge.Slack).UnixMilli()
		if due > ripe {
			return at(due).Add(-judge.Slack), nil
		}
		id, ok := s.spaceOf(sid)
		if !ok { // nothing waits for it any more
			return time.Time{}, nil
		}
		if err := s.unpark(ctx, id, ripe); err != nil {
			return time.Time{}, err
		}
	}
}

func (s *Store) spaceOf(sid int64) (tinycloud.SpaceID, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, known := range s.ids {
		if known == sid {
			return id, true
		}
	}
	return tinycloud.SpaceID{}, false
}

// ripe is a parked entry that is due.
type ripe struct {
	ord   int64
	bytes []byte
}

// unpark adds the first entries of a Space that are due.
func (s *Store) unpark(ctx context.Context, id tinycloud.SpaceID, until int64) error {
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		var rows []ripe
		err = t.each(func(scan db.Scan) error {
			var r ripe
			err := scan(&r.ord, &r.bytes)
			rows = append(rows, r)
			return err
		}, "SELECT ord, bytes FROM parked WHERE sid = ? AND due <= ? ORDER BY due, ord LIMIT ?", sp.sid, until, unparkAtOnce)
		if err != nil {
			return err
		}
		c := t.touch(sp)
		for _, r := range rows {
			if err := t.exec("DELETE FROM parked WHERE ord = ?", r.ord); err != nil {
				return err
			}
			if r.bytes == nil {
				sp.parked.noted--
				continue // the next round brings it
			}
			sp.parked.entries--
			sp.parked.bytes -= int64(len(r.bytes))
			added, err := t.ripen(sp, r.bytes)
			if err != nil {
				return err
			}
			if added {
				c.Remote++
			}
		}
		return nil
	})
}

// ripen adds an entry that was parked. One that does not fit is dropped: who has it sends it again.
func (t *tx) ripen(sp *space, stored []byte) (added bool, err error) {
	b, err := decodeParked(stored)
	if err != nil {
		return false, err
	}
	v := hostlog.CheckAll(sp.id, []hostlog.Bundle{b})
	if v.Bad != nil {
		return false, nil
	}
	switch err := t.enter(sp, v.Good[0]); {
	case err == nil:
		return true, nil
	case errors.Is(err, errKnown), errors.Is(err, errGap), errors.Is(err, errHeld), errors.Is(err, errParked):
		return false, nil
	case blames(err):
		t.s.log.WarnContext(t.ctx, "a parked entry does not fit", "host", b.Entry.Host.String(), "n", b.Entry.N, "error", err)
		return false, nil
	default:
		return false, err
	}
}

// keepUnparking adds parked entries when they are due.
func (s *Store) keepUnparking(ctx context.Context) {
	for {
		pause := unparkEvery
		next, err := s.Unpark(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.WarnContext(ctx, "cannot add parked entries", "error", err)
		case !next.IsZero():
			pause = max(min(pause, next.Sub(s.o.Now())), time.Millisecond)
		}
		if !s.parked.Within(ctx, pause) { // something earlier may come
			return
		}
	}
}
