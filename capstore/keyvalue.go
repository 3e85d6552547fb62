package capstore

import (
	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// keyValue is the service that every host has: keys, whose operations are writes and deletes of them.
type keyValue struct{ s *Store }

func (keyValue) Name() string    { return dag.KV }
func (keyValue) Version() uint64 { return 1 }

func (keyValue) Mutates(ability string) bool {
	return judge.Covers(token.AbilityPut, ability) || judge.Covers(token.AbilityDel, ability)
}

func (keyValue) Read(_ string, b []byte) (service.Op, error) {
	op, err := dag.DecodeOp(b)
	switch {
	case err != nil:
		return service.Op{}, service.ErrNewer
	case op.Delete:
		return service.Op{Ability: token.AbilityDel, Removes: true}, nil
	}
	return service.Op{Ability: token.AbilityPut, Value: op.Value}, nil
}

// kvOp is an operation on a key at its place.
type kvOp struct {
	op    dag.Op
	at    Position
	n     int // within its event
	event tinycloud.Hash
}

func readKV(p service.Placed) (kvOp, error) {
	op, err := dag.DecodeOp(p.Bytes)
	return kvOp{op, p.At, p.N, p.Event}, err
}

func (keyValue) Apply(tx service.Tx, p service.Placed, elsewhere bool) (bool, error) {
	x := tx.(*inSpace)
	o, err := readKV(p)
	if err != nil {
		return false, err
	}
	return x.t.apply(x.sp, x.epoch, o, elsewhere)
}

func (keyValue) Fold(tx service.Tx, key string) error {
	x := tx.(*inSpace)
	return x.t.refoldTold(x.sp, key)
}

// Stands judges a delete that names a version. One without is judged when its key is folded.
func (keyValue) Stands(tx service.Tx, p service.Placed, was bool) (bool, error) {
	o, err := readKV(p)
	switch {
	case err != nil:
		return false, err
	case !o.op.Delete:
		return true, nil
	case o.op.Version == nil:
		return was, nil
	}
	x := tx.(*inSpace)
	_, ok, err := x.t.named(x.sp, x.epoch, p.At.Index, o.op)
	return ok, err
}

// Aside gives a delete the version of the greatest write in the past of the epoch that is being made.
func (keyValue) Aside(tx service.Tx, key string, b []byte) ([]byte, error) {
	op, err := dag.DecodeOp(b)
	if err != nil || !op.Delete {
		return b, err
	}
	x := tx.(*inSpace)
	v, err := x.t.newestWrite(x.sp, x.past, key)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, tinycloud.Refuse(tinycloud.ErrUnavailable, "What is to be deleted was written by a clock that is ahead")
	}
	op.Version = &dag.Version{Seq: v.Seq, Epoch: v.Epoch, Index: v.Index}
	return op.Encode(), nil
}
