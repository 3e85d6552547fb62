package capstore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// Op is a write or a delete that an invocation asks for.
type Op struct {
	Space    tinycloud.SpaceID
	Key      string
	Delete   bool
	Value    tinycloud.Hash    // of a write: the content's hash
	Size     int64             // of the content in bytes
	Inline   []byte            // the content; nil when it is in the block store already
	Metadata map[string]string // stored headers, lower-case names
}

// Precondition is what has to hold of a key for its operation to be carried out.
type Precondition struct {
	Absent bool            // no live value
	Match  *tinycloud.Hash // the live value's hash
}

// Write carries out the operations of an admitted invocation: all or none, durable when it returns. It
// returns per operation the hash written, or removed by a delete (zero when the key was deleted
// already). Authority, replay, preconditions and quota are judged in the transaction.
func (s *Store) Write(ctx context.Context, tok *Token, ops []Op, pre *Precondition) ([]tinycloud.Hash, error) {
	s.compared(ctx, tok.Spaces())
	var out []tinycloud.Hash
	do := s.add
	if !slices.ContainsFunc(ops, func(o Op) bool { return !o.Delete }) {
		do = s.do
	}
	err := do(ctx, func(t *tx) error {
		out = nil
		return t.operate(tok, ops, pre, func(sp *space, p plan) error {
			out = append(out, p.hashes...)
			return t.carryOut(sp, tok, p)
		})
	})
	return out, err
}

// Check reports whether [Store.Write] would carry out the operations now. It is for values that go to
// the block store first, so that nothing is left there of a write that is refused.
func (s *Store) Check(ctx context.Context, tok *Token, ops []Op, pre *Precondition) error {
	return s.do(ctx, func(t *tx) error {
		return t.operate(tok, ops, pre, func(*space, plan) error { return nil })
	})
}

// operate judges the operations of an invocation and calls then for each Space with what to do.
func (t *tx) operate(tok *Token, ops []Op, pre *Precondition, then func(*space, plan) error) error {
	if err := t.present(ops); err != nil {
		return err
	}
	if err := t.authorised(tok); err != nil {
		return err
	}
	for _, group := range bySpace(ops) {
		sp, err := t.space(group[0].Space)
		if err != nil {
			return err
		}
		if err := t.admitted(sp); err != nil {
			return err
		}
		p, err := t.plan(sp, group, pre)
		if err != nil {
			return err
		}
		if err := then(sp, p); err != nil {
			return err
		}
	}
	return nil
}

// authorised judges replay and authority of an invocation.
func (t *tx) authorised(tok *Token) error {
	if err := t.s.unused(t.ctx, t, tok, tok.Spaces()); err != nil {
		return err
	}
	c := t.s.chain(t)
	c.extra = t.revoked
	return c.authorise(t.ctx, tok, t.now)
}

// bySpace splits operations into runs of one Space, keeping their order.
func bySpace(ops []Op) [][]Op {
	var out [][]Op
	for i, op := range ops {
		if i == 0 || op.Space != ops[i-1].Space {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], op)
	}
	return out
}

// plan is what an invocation does to one Space.
type plan struct {
	ops    []dag.Operation
	hashes []tinycloud.Hash // what Write returns
	values []hostlog.Value  // small ones
	large  []Op             // writes whose value is in the block store
}

// plan judges preconditions and quota.
func (t *tx) plan(sp *space, ops []Op, pre *Precondition) (p plan, err error) {
	for _, op := range ops {
		k, err := t.keyRow(sp, op.Key)
		if err != nil {
			return p, err
		}
		if k.pending {
			return p, errUpgrade()
		}
		if !pre.holds(k) {
			return p, tinycloud.Refuse(tinycloud.ErrPrecondition, "KV precondition failed")
		}
		if op.Delete {
			d, hash, err := removal(op, k)
			if err != nil {
				return p, err
			}
			p.ops, p.hashes = append(p.ops, d.Operation()), append(p.hashes, hash)
			continue
		}
		if hostlog.MetadataSize(op.Metadata) > hostlog.MaxMetadata {
			return p, tinycloud.Refuse(tinycloud.ErrTooLarge, "Headers exceed %d bytes", hostlog.MaxMetadata)
		}
		p.ops = append(p.ops, dag.Op{Key: op.Key, Value: op.Value, Metadata: op.Metadata}.Operation())
		p.hashes = append(p.hashes, op.Value)
		if op.Inline != nil {
			p.values = append(p.values, hostlog.Value{Hash: op.Value, Bytes: op.Inline})
		} else {
			p.large = append(p.large, op)
		}
	}
	return p, t.fits(sp, ops)
}

// carryOut mints the epoch of a plan, after those of the delegations it rests on.
func (t *tx) carryOut(sp *space, tok *Token, p plan) error {
	if err := t.root(sp, tok, 0); err != nil {
		return err
	}
	for _, op := range p.large {
		if err := t.saveValue(sp, op.Value, op.Size, nil); err != nil {
			return err
		}
	}
	return t.mint(sp, tok, p.ops, p.values)
}

// removal returns the delete of a key: it names the newest write, also one that is deleted already.
func removal(op Op, k keyState) (dag.Op, tinycloud.Hash, error) {
	if !k.written {
		return dag.Op{}, tinycloud.Hash{}, tinycloud.Refuse(tinycloud.ErrNotFound, "No Such Key: %s", op.Key)
	}
	d := dag.Op{Key: op.Key, Delete: true, Version: &dag.Version{Seq: k.at.Seq, Epoch: k.at.Epoch, Index: k.at.Index}}
	if !k.live {
		return d, tinycloud.Hash{}, nil
	}
	return d, k.value, nil
}

func (p *Precondition) holds(k keyState) bool {
	switch {
	case p == nil:
		return true
	case p.Absent:
		return !k.live
	case p.Match != nil:
		return k.live && k.value == *p.Match
	}
	return true
}

// Record is the current value of a key.
type Record struct {
	Value    tinycloud.Hash
	Size     int64 // -1 while the value is still to be fetched from another host
	Metadata map[string]string

	small []byte // the content if the database has it, not nil then
}

// Get returns the current value of a key; the error is of class [tinycloud.ErrNotFound] when there is
// none.
func (s *Store) Get(ctx context.Context, space tinycloud.SpaceID, key string) (Record, error) {
	sid, err := s.sid(ctx, space)
	if err != nil {
		return Record{}, err
	}
	var value, meta, small []byte
	var size *int64
	var live, pending bool
	ok, err := s.db.Read.One(ctx, []any{&live, &pending, &value, &meta, &size, &small}, `SELECT k.live, k.pending, k.value, k.meta, v.size, v.inline FROM kv k LEFT JOIN vals v ON v.sid = k.sid AND v.hash = k.value
		WHERE k.sid = ? AND k.key = ?`, sid, s.key(key))
	switch {
	case err != nil:
		return Record{}, err
	case pending:
		return Record{}, errUpgrade()
	case !ok || !live:
		return Record{}, fmt.Errorf("key %q: %w", key, tinycloud.ErrNotFound)
	}
	r := Record{Value: tinycloud.Hash(value), Size: -1, small: small}
	if size != nil {
		r.Size = *size
	}
	if r.Size == 0 && small == nil {
		r.small = []byte{}
	}
	if err := json.Unmarshal(meta, &r.Metadata); err != nil {
		return Record{}, fmt.Errorf("metadata of %q: %w", key, err)
	}
	return r, nil
}

type inlineValue struct{ *bytes.Reader }

func (inlineValue) Close() error { return nil }

// Open opens the value of a record; errors are those of [Store.Value].
func (s *Store) Open(ctx context.Context, space tinycloud.SpaceID, r Record) (io.ReadSeekCloser, error) {
	if r.small != nil {
		return inlineValue{bytes.NewReader(r.small)}, nil
	}
	if r.Size >= 0 && s.o.Blocks != nil {
		// Its row may have been freed since the record was read, its file is not for a while.
		return s.o.Blocks.Open(ctx, space, r.Value)
	}
	return s.Value(ctx, space, r.Value)
}

// Value opens a value of a Space. The error is of class [tinycloud.ErrUnavailable] while the value is
// still to be fetched from another host.
func (s *Store) Value(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (io.ReadSeekCloser, error) {
	b, held, err := s.inline(ctx, space, hash)
	switch {
	case err != nil:
		return nil, err
	case b != nil:
		return inlineValue{bytes.NewReader(b)}, nil
	case !held || s.o.Blocks == nil:
		return nil, tinycloud.Refuse(tinycloud.ErrUnavailable, "The value has not arrived at this host yet")
	}
	return s.o.Blocks.Open(ctx, space, hash)
}

// Inline returns a value that is kept in the database, nil when it is in the block store or not held.
func (s *Store) Inline(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) ([]byte, error) {
	b, _, err := s.inline(ctx, space, hash)
	return b, err
}

func (s *Store) inline(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (b []byte, held bool, err error) {
	sid, err := s.sid(ctx, space)
	if err != nil {
		return nil, false, err
	}
	var size int64
	held, err = s.db.Read.One(ctx, []any{&b, &size}, "SELECT inline, size FROM vals WHERE sid = ? AND hash = ?", sid, hash[:])
	if held && size == 0 && b == nil {
		b = []byte{}
	}
	return b, held, err
}

// Covers reports whether an admitted invocation's signer holds an ability on a key, under the caveats
// that the invocation itself repeats: as owner of the Space, or by one of the proofs it cites.
func (s *Store) Covers(ctx context.Context, t *Token, space tinycloud.SpaceID, ability, key string) bool {
	if space.Owner() == t.Signer {
		return true
	}
	resource, ok := space.NewKey("kv", key)
	if !ok {
		return false
	}
	c := s.chain(s.db.Read)
	parents, err := c.parents(ctx, t)
	if err != nil {
		return false
	}
	for _, asked := range t.Caps {
		path, _ := asked.Resource.Path()
		if asked.Ability != ability || asked.Resource.Space() != space || !strings.HasPrefix(key, path) {
			continue
		}
		wanted := Capability{Resource: resource, Ability: ability, Caveats: asked.Caveats}
		if ok, _ := c.granted(ctx, wanted, parents); ok && c.failed == nil {
			return true
		}
	}
	return false
}
