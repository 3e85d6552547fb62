// Package kv is key-value, the service of keys: an operation writes a key or deletes it. What a key holds is the greatest
// write to it that no delete reaches; writes that lost against others which did not know of them are its conflicts. The
// package knows the history by the seam alone (package service). Source: docs/protocol.md, "KV";
// docs/replication.md, "Order of operations" and "Conflicts".
package kv

import (
	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Name is the service's.
const Name = dag.KV

// Service is key-value as the history knows it. It has no state of its own.
type Service struct{}

var (
	_ service.Keeper = Service{}
	_ service.Looker = Service{}
)

// Name implements [service.Service], as do the following.
func (Service) Name() string    { return Name }
func (Service) Version() uint64 { return 1 }

func (Service) Mutates(ability string) bool {
	return ability == token.AbilityPut || ability == token.AbilityDel || ability == token.AbilityDelete
}

func (Service) Read(_ string, b []byte) (service.Op, error) {
	op, err := dag.DecodeOp(b)
	switch {
	case err != nil:
		return service.Op{}, service.ErrNewer
	case op.Delete:
		return service.Op{Ability: token.AbilityDel, Removes: true}, nil
	}
	return service.Op{Ability: token.AbilityPut, Value: op.Value}, nil
}

func (Service) Apply(tx service.Tx, p service.Placed, elsewhere bool) (bool, error) {
	op, err := dag.DecodeOp(p.Bytes)
	if err != nil {
		return false, err
	}
	return folder{tx}.apply(placed{p, op}, elsewhere)
}

// Looks implements [service.Looker].
func (Service) Looks(sid int64, d db.Dialect, key string) []service.Looked {
	indexed, _ := d.Key(key)
	return []service.Looked{{Look: lookKey, Args: []any{sid, indexed}}}
}

func (Service) Fold(tx service.Tx, key string) error {
	_, err := folder{tx}.foldKey(key)
	return err
}

// Stands judges a delete that names a version. One without is judged when its key is folded.
func (Service) Stands(tx service.Tx, p service.Placed, was bool) (bool, error) {
	op, err := dag.DecodeOp(p.Bytes)
	switch {
	case err != nil:
		return false, err
	case !op.Delete:
		return true, nil
	case op.Version == nil:
		return was, nil
	}
	_, ok, err := folder{tx}.named(placed{p, op})
	return ok, err
}

// Aside gives a delete the version of the greatest write in the past of the epoch that is being made.
func (Service) Aside(tx service.Tx, key string, b []byte) ([]byte, error) {
	op, err := dag.DecodeOp(b)
	if err != nil || !op.Delete {
		return b, err
	}
	v, err := folder{tx}.newestWrite(key)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, tinycloud.Refuse(tinycloud.ErrUnavailable, "What is to be deleted was written by a clock that is ahead")
	}
	op.Version = &dag.Version{Seq: v.Seq, Epoch: v.Epoch, Index: v.Index}
	return op.Encode(), nil
}

// folder folds keys in a transaction.
type folder struct{ service.Tx }

// placed is an operation on a key at its place.
type placed struct {
	service.Placed
	op dag.Op
}

// key returns the form of a key that its column is searched by.
func (f folder) key(key string) any {
	indexed, _ := f.Key(key)
	return indexed
}
