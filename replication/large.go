package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// source is what a host says of a value: how long it is and which manifest lists its chunks.
type source struct {
	peer     hostlog.Key
	manifest tinycloud.Hash
	size     int64
}

// locateAll completes what is known of values by asking one host after the other. Those that no host has
// get the size -1.
func (r *Replica) locateAll(ctx context.Context, group []job) []job {
	var open []int
	for i, j := range group {
		if j.src.size == 0 {
			group[i].src.size = -1
			open = append(open, i)
		}
	}
	hosts := r.partners()
	for k := range hosts {
		if len(open) == 0 {
			break
		}
		m := hosts[(k+group[open[0]].Tries)%len(hosts)]
		hashes := make([]tinycloud.Hash, len(open))
		for n, i := range open {
			hashes[n] = group[i].Hash
		}
		found := r.locate(ctx, m, hashes)
		var left []int
		for n, i := range open {
			if found == nil || found[n].size < 0 || r.wants.banned(ban{value: group[i].Hash, peer: m.host}) {
				left = append(left, i)
				continue
			}
			group[i].src = found[n]
		}
		open = left
	}
	return group
}

// fetchLarge fetches a value that is longer than a block from one source after the other. What a source
// said is a hint: a manifest that gives another value is not used again.
func (r *Replica) fetchLarge(ctx context.Context, j job) error {
	err := fmt.Errorf("value %s: no host says how to fetch it: %w", j.Hash, tinycloud.ErrUnavailable)
	if !j.src.manifest.IsZero() {
		if err = r.try(ctx, j.Hash, j.src); err == nil {
			return nil
		}
	}
	tried := []tinycloud.Hash{j.src.manifest}
	for _, m := range r.partners() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.wants.banned(ban{value: j.Hash, peer: m.host}) {
			continue
		}
		found := r.locate(ctx, m, []tinycloud.Hash{j.Hash})
		if found == nil || found[0].size <= blockSize || slices.Contains(tried, found[0].manifest) {
			continue
		}
		tried = append(tried, found[0].manifest)
		if err = r.try(ctx, j.Hash, found[0]); err == nil {
			return nil
		}
	}
	return err
}

// try fetches from one source and bans it if it lied.
func (r *Replica) try(ctx context.Context, value tinycloud.Hash, src source) error {
	key := ban{value: value, manifest: src.manifest}
	if r.wants.banned(key) {
		return fmt.Errorf("value %s: manifest %s gives another: %w", value, src.manifest, tinycloud.ErrUnavailable)
	}
	err := r.assemble(ctx, value, src)
	if !errors.Is(err, tinycloud.ErrForged) && !errors.Is(err, tinycloud.ErrInvalid) {
		return err
	}
	r.log.WarnContext(ctx, "manifest does not give the value", "value", value, "peer", src.peer, "error", err)
	r.wants.ban(key)
	if src.peer != (hostlog.Key{}) {
		r.wants.ban(ban{value: value, peer: src.peer})
	}
	return err
}

// locate asks a peer how to fetch values; nil when it does not answer.
func (r *Replica) locate(ctx context.Context, m *remote, hashes []tinycloud.Hash) []source {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	answer, err := r.ask(ctx, m, &wire.Message{Locate: &wire.Locate{Hashes: hashes}}, wire.MaxRequest)
	if err == nil && (answer.Located == nil || len(answer.Located.Values) != len(hashes)) {
		err = fmt.Errorf("answer to locate: %w", tinycloud.ErrInvalid)
	}
	if err != nil {
		r.judge(ctx, m, err)
		return nil
	}
	out := make([]source, len(hashes))
	for i, l := range answer.Located.Values {
		out[i] = source{peer: m.host, manifest: l.Manifest, size: l.Size}
	}
	return out
}

// ask opens a stream for one request and its answer.
func (r *Replica) ask(ctx context.Context, m *remote, request *wire.Message, limit int) (*wire.Message, error) {
	s, err := r.net.Peer.NewStream(ctx, m.id, wire.SyncProtocol)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	f := wire.NewFramer(s, limit, syncStall, r.o.Metrics.Bytes("request"))
	answer := (*wire.Message)(nil)
	if err = f.Put(request); err == nil {
		answer, err = f.Get()
	}
	if err != nil {
		_ = s.Reset()
		return nil, err
	}
	return answer, s.Close()
}

// fetchBlocks is [Blocks.Fetch], or one of a series.
type fetchBlocks = func(context.Context, []cid.Cid) (<-chan blocks.Block, error)

// assemble fetches a manifest and the chunks it lists. What came stays for the next attempt.
func (r *Replica) assemble(ctx context.Context, value tinycloud.Hash, src source) error {
	const held = chunkGroups * chunkGroup * blockSize
	if err := r.o.Memory.take.acquire(ctx, r.space, held); err != nil {
		return err
	}
	defer r.o.Memory.take.release(r.space, held)
	series, end := context.WithCancel(ctx)
	defer end()
	fetch, err := r.net.Blocks.Series(series)
	if err != nil {
		return err
	}
	manifest, err := fetchBlock(ctx, fetch, src.manifest.CID(tinycloud.CBORCodec))
	if err != nil {
		return err
	}
	a, err := r.o.Values.Assemble(ctx, r.space, value, src.size, manifest)
	if err != nil {
		return err
	}
	if err := fetchChunks(ctx, fetch, a); err != nil {
		if errors.Is(err, tinycloud.ErrForged) || errors.Is(err, tinycloud.ErrInvalid) {
			return errors.Join(err, a.Discard())
		}
		return errors.Join(err, a.Close())
	}
	end() // its peers need not be kept in mind while the value is made durable
	if err := a.Finish(ctx); err != nil {
		return err
	}
	return r.o.Store.Arrived(ctx, r.space, value, src.size, nil)
}

func fetchBlock(ctx context.Context, fetch fetchBlocks, c cid.Cid) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	came, err := fetch(ctx, []cid.Cid{c})
	if err != nil {
		return nil, err
	}
	for b := range came {
		if tinycloud.Sum(b.RawData()) == tinycloud.HashOf(c) {
			return b.RawData(), nil
		}
	}
	return nil, fmt.Errorf("block %s: no host gave it: %w", c, tinycloud.ErrUnavailable)
}

// chunkFetch is a fetch of a few chunks that is under way.
type chunkFetch struct {
	chunks int
	came   <-chan blocks.Block
	end    context.CancelFunc
}

func startFetch(ctx context.Context, fetch fetchBlocks, hashes []tinycloud.Hash) (f chunkFetch, err error) {
	cids := make([]cid.Cid, len(hashes))
	for i, h := range hashes {
		cids[i] = h.CID(tinycloud.RawCodec)
	}
	ctx, f.end = context.WithTimeout(ctx, groupTimeout)
	f.chunks = len(cids)
	if f.came, err = fetch(ctx, cids); err != nil {
		f.end()
	}
	return f, err
}

// fetchChunks fetches what an assembly lacks. While the chunks of one group are written the next groups are on
// their way: peers are never left without something to send.
func fetchChunks(ctx context.Context, fetch fetchBlocks, a Assembly) error {
	var started []chunkFetch // in the order of the value
	defer func() {
		for _, f := range started {
			f.end()
		}
	}()
	for missing := a.Missing(); len(missing) > 0 || len(started) > 0; {
		for len(missing) > 0 && len(started) < chunkGroups {
			n := min(chunkGroup, len(missing))
			f, err := startFetch(ctx, fetch, missing[:n])
			if err != nil {
				return err
			}
			started, missing = append(started, f), missing[n:]
		}
		if err := putChunks(ctx, a, started[0].came, started[0].chunks); err != nil {
			return err
		}
		started[0].end()
		started = started[1:]
	}
	return nil
}

// putChunks writes n chunks as they come.
func putChunks(ctx context.Context, a Assembly, came <-chan blocks.Block, n int) error {
	stall := time.NewTimer(chunkStall)
	defer stall.Stop()
	for n > 0 {
		select {
		case b, ok := <-came:
			if !ok {
				return fmt.Errorf("%d chunks did not come: %w", n, tinycloud.ErrUnavailable)
			}
			if err := a.PutChunk(tinycloud.HashOf(b.Cid()), b.RawData()); err != nil {
				return err
			}
			n--
			stall.Reset(chunkStall)
		case <-stall.C:
			return fmt.Errorf("%d chunks did not come for %s: %w", n, chunkStall, tinycloud.ErrUnavailable)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
