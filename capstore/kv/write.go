package kv

import (
	"context"
	"encoding/json"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Keys are the keys of the Spaces in a store. It is safe for concurrent use.
type Keys struct{ store service.Store }

// Of returns the keys in a store, which has [Service] among its services.
func Of(store service.Store) *Keys { return &Keys{store} }

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

// EncodeOp returns the bytes of an operation: of its key and, for a write, value and metadata. A delete
// names no version, as over the reference's HTTP API.
func EncodeOp(op Op) []byte {
	return dag.Op{Key: op.Key, Delete: op.Delete, Value: op.Value, Metadata: op.Metadata}.Encode()
}

// Precondition is what has to hold of a key for its operation to be carried out.
type Precondition struct {
	Absent bool            // no live value
	Match  *tinycloud.Hash // the live value's hash
}

// Write carries out the operations of an admitted invocation: all or none, durable when it returns. It
// returns per operation the hash written, or removed by a delete (zero when the key was deleted
// already). Authority, replay, preconditions and quota are judged in the transaction.
func (k *Keys) Write(ctx context.Context, tok *token.Token, ops []Op, pre *Precondition) ([]tinycloud.Hash, error) {
	r, hashes := request(tok, ops, pre)
	r.Adds = slices.ContainsFunc(ops, func(o Op) bool { return !o.Delete })
	err := k.store.Perform(ctx, r)
	if err != nil {
		return nil, err
	}
	return slices.Concat(hashes...), nil
}

// Check reports whether [Keys.Write] would carry out the operations now. It is for values that go to
// the block store first, so that nothing is left there of a write that is refused.
func (k *Keys) Check(ctx context.Context, tok *token.Token, ops []Op, pre *Precondition) error {
	r, _ := request(tok, ops, pre)
	r.Only = true
	return k.store.Perform(ctx, r)
}

// request makes a request of operations, and where it puts the hashes that Write returns, by its parts.
func request(tok *token.Token, ops []Op, pre *Precondition) (r service.Request, hashes [][]tinycloud.Hash) {
	groups := bySpace(ops)
	r, hashes = service.Request{Token: tok, Service: Name}, make([][]tinycloud.Hash, len(groups))
	for i, group := range groups {
		r.Parts = append(r.Parts, service.Part{Space: group[0].Space, Plan: func(tx service.Tx) (p service.Plan, err error) {
			p, hashes[i], err = folder{tx}.plan(group, pre)
			return p, err
		}, Ahead: func(sid int64, d db.Dialect) []service.Looked { return looks(sid, d, group) }})
	}
	return r, hashes
}

// looks are those that operations in a Space lead to.
func looks(sid int64, d db.Dialect, ops []Op) (all []service.Looked) {
	for _, op := range ops {
		key, _ := d.Key(op.Key)
		all = append(all, service.Looked{Look: lookKey, Args: []any{sid, key}})
		if !op.Delete {
			all = append(all, service.Looked{Look: service.LookValue, Args: []any{sid, op.Value[:]}}, service.Looked{Look: service.LookPast, Args: []any{sid, op.Value[:]}})
		}
	}
	return all
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

// plan judges preconditions, and returns what to do in a Space and what Write returns of it.
func (f folder) plan(ops []Op, pre *Precondition) (p service.Plan, hashes []tinycloud.Hash, err error) {
	for _, op := range ops {
		k, err := f.keyRow(op.Key)
		if err != nil {
			return p, nil, err
		}
		if k.pending {
			return p, nil, service.Upgrade()
		}
		if !pre.holds(k) {
			return p, nil, tinycloud.Refuse(tinycloud.ErrPrecondition, "KV precondition failed")
		}
		if op.Delete {
			d, hash, err := removal(op, k)
			if err != nil {
				return p, nil, err
			}
			p.Ops, hashes = append(p.Ops, d.Encode()), append(hashes, hash)
			continue
		}
		if hostlog.MetadataSize(op.Metadata) > hostlog.MaxMetadata {
			return p, nil, tinycloud.Refuse(tinycloud.ErrTooLarge, "Headers exceed %d bytes", hostlog.MaxMetadata)
		}
		p.Ops, hashes = append(p.Ops, EncodeOp(op)), append(hashes, op.Value)
		p.Values = append(p.Values, service.Value{Hash: op.Value, Size: op.Size, Bytes: op.Inline})
	}
	return p, hashes, nil
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

// encodeMeta returns the JSON of metadata that is stored.
func encodeMeta(m map[string]string) []byte {
	b, err := json.Marshal(shown(m))
	if err != nil {
		panic(err) // texts always encode
	}
	return b
}
