package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// Tables implements [service.Keeper]: kv has what each key holds, conflicts what lost.
func (Service) Tables() []service.Table {
	return []service.Table{
		{
			Name: "kv", What: "key that holds something else", Hashes: []string{"epoch", "value", "f_epoch"}, Key: "key",
			Same:  []string{"key", "live", "seq", "epoch", "idx", "value", "meta", "f_seq", "f_epoch", "f_idx"},
			Value: "value", Held: "live = 1", Current: true, Epoch: "epoch",
		},
		{
			Name: "conflicts", What: "conflict that is none", Hashes: []string{"event", "value"},
			Same:  []string{"event", "eid", "idx", "n", "value"},
			Value: "value", Held: "turn > 0", Since: "since", Turn: "turn", For: ConflictAge,
		},
	}
}

// Digest writes the DAG-CBOR of [[key, multihash, metadata]…] over the current keys in byte order.
func (Service) Digest(ctx context.Context, r service.Reader, w io.Writer) error {
	var keys int64
	if _, err := r.One(ctx, []any{&keys}, "SELECT count(*) FROM kv WHERE sid = ? AND live = 1", r.Sid()); err != nil {
		return err
	}
	if _, err := w.Write(cbor.AppendHead(nil, cbor.Array, uint64(keys))); err != nil {
		return err
	}
	return lister{r}.each(ctx, keyRange{full: true}, func(k keyed) error {
		m := map[string]string{}
		if err := json.Unmarshal(k.meta, &m); err != nil {
			return fmt.Errorf("metadata of %q: %w", k.key, err)
		}
		b := cbor.AppendText(cbor.AppendHead(nil, cbor.Array, 3), k.key)
		value := tinycloud.Hash(k.value).Multihash()
		b = cbor.AppendBytes(b, value)
		_, err := w.Write(dag.AppendMap(b, m))
		return err
	})
}

// Gauges implements [service.Keeper].
func (Service) Gauges(now time.Time) []service.Gauge {
	return []service.Gauge{{
		Name: "tinycloud_conflicts", Help: "Writes that lost against others which did not know of them, and are listed.",
		Query: "SELECT count(*) FROM conflicts WHERE since > ?", Args: []any{now.Add(-ConflictAge).UnixMilli()},
	}}
}
