package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/progress"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/reference"
)

// What is odd about data that was taken over, beside what package reference tells.
const (
	FoundFiltered   = "write that stored request headers, which are kept in the history and shown to no one"
	FoundLate       = "epoch that came after this node wrote to the space, left out"
	FoundRebuilt    = "epoch taken over under another id, because it or one before it does not recompute"
	FoundEmpty      = "epoch without events, left out"
	FoundOrphan     = "parent that is nowhere"
	FoundToken      = "delegation or revocation that proves nothing, left out"
	FoundNoBlock    = "current value that is not among the blocks"
	FoundWrongBlock = "block whose bytes are not those of its hash: served by this node as before, peers cannot take it"
	FoundNetwork    = "encryption network whose key does not open: what is sealed to it is lost, unless the secret is another"
	FoundOtherValue = "key that holds something else than at the node it came from"
)

const (
	batchBytes   = 1 << 20
	maxUnitBytes = 3 << 20 // of one epoch with its events
	valuesAtOnce = 256
	maxValue     = 5 << 30
)

// TakeOver is what takes a reference node's data over.
type TakeOver struct {
	From   *reference.DB
	Blocks reference.Blocks
	To     *node.Data
	Source *encryption.Source // of encryption networks; nil: the secret is not known
	Files  string             // directory for SQL databases, each as a file; "": they are left out
	Log    io.Writer          // progress
	Odd    Findings

	Networks int // encryption networks taken over, or keys of them, that were not here
}

// Outcome is what became of a Space.
type Outcome struct {
	Space tinycloud.SpaceID
	capstore.Taken
	Read   int64 // epochs of the reference's database
	New    int64 // of them, added now
	Values int64 // added now
	Bytes  int64 // of values added now

	Databases []Database // saved as files
}

func (o *TakeOver) odd(x reference.Oddity) {
	which := x.Which
	if x.Space != "" {
		which = x.Space + " " + which
	}
	o.Odd.Add(x.What, which)
}

// Run takes everything over.
func (o *TakeOver) Run(ctx context.Context) ([]Outcome, error) {
	spaces, err := o.From.Spaces(ctx, o.odd)
	if err != nil {
		return nil, err
	}
	if err := o.tokens(ctx); err != nil {
		return nil, err
	}
	var out []Outcome
	for i, s := range spaces {
		x, err := o.space(ctx, fmt.Sprintf("space %d of %d", i+1, len(spaces)), s)
		if err != nil {
			return out, fmt.Errorf("%s: %w", s.Text, err)
		}
		out = append(out, x)
	}
	return out, o.networks(ctx)
}

// networks takes the keys of encryption networks over.
func (o *TakeOver) networks(ctx context.Context) error {
	return o.From.Networks(ctx, o.odd, func(x encryption.Foreign) error {
		if o.Source == nil {
			o.Odd.Add(FoundNetwork, x.ID.String()+": the secret is not known")
			return nil
		}
		added, err := o.To.Networks.Take(ctx, *o.Source, x)
		if errors.Is(err, tinycloud.ErrInvalid) {
			o.Odd.Add(FoundNetwork, x.ID.String()+": "+err.Error())
			return nil
		}
		if added {
			o.Networks++
		}
		return err
	})
}

// tokens takes delegations and revocations over, also those that stand in no epoch.
func (o *TakeOver) tokens(ctx context.Context) error {
	bar := progress.New(o.Log, "delegations", "tokens", 0)
	defer bar.Done()
	var batch [][]byte
	var ids []tinycloud.Hash
	flush := func() error {
		left, err := o.To.Store.Takeover().Tokens(ctx, batch)
		for i, why := range left {
			o.Odd.Add(FoundToken, fmt.Sprintf("%s: %v", ids[i].EventID(), why))
		}
		bar.Add(int64(len(batch)), 0)
		batch, ids = nil, nil
		return err
	}
	err := o.From.Tokens(ctx, o.odd, func(id tinycloud.Hash, b []byte) error {
		if batch, ids = append(batch, b), append(ids, id); len(batch) == valuesAtOnce {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

func (o *TakeOver) space(ctx context.Context, label string, s reference.Space) (Outcome, error) {
	out := Outcome{Space: s.ID}
	to := o.To.Store.Takeover()
	err := to.Begin(ctx, s.ID)
	late := errors.Is(err, tinycloud.ErrConflict)
	if err != nil && !late {
		return out, err
	}
	h := &history{o: o, to: to, space: s, late: late, out: &out, known: map[tinycloud.Hash]bool{}, instead: map[tinycloud.Hash][]tinycloud.Hash{}}
	h.bar = progress.New(o.Log, label+", history", "epochs", s.Epochs)
	err = o.From.Epochs(ctx, s, o.odd, func(e reference.Epoch) error { return h.add(ctx, e) })
	if err == nil {
		err = h.flush(ctx)
	}
	h.bar.Done()
	if err != nil {
		return out, err
	}
	if err := o.values(ctx, label, s, &out); err != nil {
		return out, err
	}
	if err := o.databases(ctx, s, &out); err != nil {
		return out, err
	}
	if out.Taken, err = to.End(ctx, s.ID); err != nil || !out.Hosted {
		return out, err
	}
	return out, o.compare(ctx, s)
}

// history takes the epochs of a Space over.
type history struct {
	o       *TakeOver
	to      capstore.Takeover
	space   reference.Space
	late    bool
	out     *Outcome
	bar     *progress.Bar
	known   map[tinycloud.Hash]bool             // epochs that are here, or in batch
	instead map[tinycloud.Hash][]tinycloud.Hash // what follows on an epoch that is not here follows
	heads   []tinycloud.Hash                    // epochs that none here follows
	batch   []hostlog.Imported
	ids     []tinycloud.Hash
	size    int
}

func (h *history) add(ctx context.Context, e reference.Epoch) error {
	h.out.Read++
	for range e.Filtered {
		h.o.Odd.Add(FoundFiltered, h.space.Text+" "+e.ID.CID(tinycloud.CBORCodec).String())
	}
	id := e.ID
	parents, same := h.parents(e)
	if !e.Exact || !same {
		if len(e.Refs) == 0 {
			h.instead[e.ID] = parents
			h.o.Odd.Add(FoundEmpty, h.space.Text+" "+e.ID.CID(tinycloud.CBORCodec).String())
			return nil
		}
		e.Epoch, e.Ops = capstore.EncodeEpoch(parents, e.Refs), reference.Ops(e.Refs)
		id = tinycloud.Sum(e.Epoch)
		h.instead[e.ID] = []tinycloud.Hash{id}
		h.o.Odd.Add(FoundRebuilt, h.space.Text+" "+e.ID.CID(tinycloud.CBORCodec).String()+" → "+id.CID(tinycloud.CBORCodec).String())
	}
	h.known[id] = true
	h.heads = append(slices.DeleteFunc(h.heads, func(x tinycloud.Hash) bool { return slices.Contains(parents, x) }), id)
	size := weight(e.Imported)
	if size > maxUnitBytes {
		return fmt.Errorf("epoch %s of %d bytes: %w", e.ID, size, tinycloud.ErrTooLarge)
	}
	if len(h.batch) == hostlog.MaxImported || h.size+size > batchBytes && len(h.batch) > 0 {
		if err := h.flush(ctx); err != nil {
			return err
		}
	}
	h.batch, h.ids, h.size = append(h.batch, e.Imported), append(h.ids, id), h.size+size
	return nil
}

func weight(e hostlog.Imported) int {
	n := len(e.Epoch)
	for _, b := range slices.Concat(e.Events, e.Ops) {
		n += len(b)
	}
	return n
}

// parents returns what an epoch follows as it is here, and whether that is what its bytes say. One whose
// parents are lost follows all before it, so that the order of writes stays.
func (h *history) parents(e reference.Epoch) (parents []tinycloud.Hash, same bool) {
	same = e.Exact || len(e.Parents) > 0 || e.Seq == 0
	if !same {
		parents = slices.Clone(h.heads)
	}
	for _, p := range e.Parents {
		if h.known[p] && h.instead[p] == nil {
			parents = append(parents, p)
			continue
		}
		same = false
		if instead, ok := h.instead[p]; ok {
			parents = append(parents, instead...)
		} else {
			h.o.Odd.Add(FoundOrphan, h.space.Text+" "+p.CID(tinycloud.CBORCodec).String())
			parents = append(parents, h.heads...)
		}
	}
	if same {
		return e.Parents, true
	}
	slices.SortFunc(parents, func(a, b tinycloud.Hash) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(parents), false
}

// flush adds those of the batch that are not here yet.
func (h *history) flush(ctx context.Context) error {
	if len(h.batch) == 0 {
		return nil
	}
	known, err := h.to.Known(ctx, h.space.ID, h.ids)
	if err != nil {
		return err
	}
	var fresh []hostlog.Imported
	for i, e := range h.batch {
		if known[h.ids[i]] {
			continue
		}
		if h.late {
			h.o.Odd.Add(FoundLate, h.space.Text+" "+h.ids[i].CID(tinycloud.CBORCodec).String())
			continue
		}
		fresh = append(fresh, e)
	}
	if len(fresh) > 0 {
		if err := h.to.Epochs(ctx, h.space.ID, fresh); err != nil {
			return err
		}
	}
	h.out.New += int64(len(fresh))
	h.bar.Add(int64(len(h.batch)), int64(h.size))
	h.batch, h.ids, h.size = nil, nil, 0
	return nil
}

// compare tells of keys that do not hold what they held.
func (o *TakeOver) compare(ctx context.Context, s reference.Space) error {
	return o.From.Current(ctx, s, func(reference.Oddity) {}, func(k reference.Key) error {
		r, err := kv.Of(o.To.Store).Get(ctx, s.ID, k.Key)
		if err != nil && !errors.Is(err, tinycloud.ErrNotFound) {
			return err
		}
		if live := err == nil; live != k.Live || live && r.Value != k.Value {
			o.Odd.Add(FoundOtherValue, fmt.Sprintf("%s %q", s.Text, k.Key))
		}
		return nil
	})
}
