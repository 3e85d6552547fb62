package p2p

import (
	"context"
	"fmt"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// blockPrefix stands before bitswap's own protocol.
const blockPrefix protocol.ID = "/tinycloud"

// newBitswap serves p.o.Blocks to authorised peers. There is one worker of
// each kind, because every Space has its own, and no content routing: only
// peers in the view are asked.
func newBitswap(ctx context.Context, p *Peer, h host.Host) *bitswap.Bitswap {
	const (
		// Between two messages bitswap waits this long times the peers of all
		// its instances in the process, and 20 ms at least. With a thousand
		// Spaces the library's default would make that most of a second.
		sendDelay = time.Nanosecond
		maxCID    = 64 // ours are 36 to 38 bytes
		wants     = 2 * MaxFetch
	)
	net := bsnet.NewFromIpfsHost(h,
		bsnet.Prefix(blockPrefix), bsnet.SupportedProtocols([]protocol.ID{bsnet.ProtocolBitswap}))
	allow := func(id peer.ID, c cid.Cid) bool {
		return p.IsAuthorised(id) && (p.o.AllowBlock == nil || p.o.AllowBlock(id, c))
	}
	return bitswap.New(ctx, net, nil, p.o.Blocks,
		bitswap.TaskWorkerCount(1), bitswap.EngineTaskWorkerCount(1), bitswap.EngineBlockstoreWorkerCount(1),
		bitswap.WithPeerBlockRequestFilter(allow),
		bitswap.MaxQueuedWantlistEntriesPerPeer(wants), bitswap.MaxCidSize(maxCID),
		bitswap.WithoutDuplicatedBlockStats(), bitswap.WithTracer(blockCounter{p.o.BlockBytes}),
		bitswap.WithClientOption(client.WithPerPeerSendDelay(sendDelay)),
	)
}

// blockCounter sees every bitswap message.
type blockCounter struct{ count func(in, out int) }

func (b blockCounter) MessageReceived(_ peer.ID, m message.BitSwapMessage) { b.count(sizeOf(m), 0) }
func (b blockCounter) MessageSent(_ peer.ID, m message.BitSwapMessage)     { b.count(0, sizeOf(m)) }

func sizeOf(m message.BitSwapMessage) (bytes int) {
	for _, b := range m.Blocks() {
		bytes += len(b.RawData())
	}
	return bytes
}

// Fetch asks the authorised peers for blocks, at most [MaxFetch], and delivers
// those that come, each hashed and compared with its CID, in any order. The
// channel is closed when all came or ctx, which must have a deadline, ends; a
// caller that stops reading early cancels ctx. Nothing is stored: call
// [Peer.NotifyBlocks] after storing a block that others may want too.
func (p *Peer) Fetch(ctx context.Context, cids []cid.Cid) (<-chan blocks.Block, error) {
	if err := p.checkFetch(ctx, cids); err != nil {
		return nil, err
	}
	e, leave, err := p.exchange.enter(ctx)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, leave)
	return e.GetBlocks(ctx, cids)
}

// Series returns a [Peer.Fetch] for calls that belong together, as those for the
// parts of one value: it asks who gave the first blocks for the next ones, where
// calls that stand alone ask all peers who has them first. It works until ctx
// ends.
func (p *Peer) Series(ctx context.Context) (fetch func(context.Context, []cid.Cid) (<-chan blocks.Block, error), err error) {
	if p.exchange == nil {
		return nil, fmt.Errorf("space peer %s has no blocks: %w", p.id, ErrInvalid)
	}
	e, leave, err := p.exchange.enter(ctx)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, leave)
	session := e.NewSession(ctx)
	return func(ctx context.Context, cids []cid.Cid) (<-chan blocks.Block, error) {
		if err := p.checkFetch(ctx, cids); err != nil {
			return nil, err
		}
		return session.GetBlocks(ctx, cids)
	}, nil
}

func (p *Peer) checkFetch(ctx context.Context, cids []cid.Cid) error {
	if p.exchange == nil {
		return fmt.Errorf("space peer %s has no blocks: %w", p.id, ErrInvalid)
	}
	if len(cids) > MaxFetch {
		return fmt.Errorf("%d blocks in one fetch: %w", len(cids), ErrInvalid)
	}
	if _, ok := ctx.Deadline(); !ok {
		return fmt.Errorf("fetch without a deadline: %w", ErrInvalid)
	}
	for _, c := range cids {
		if !c.Defined() {
			return fmt.Errorf("fetch of no cid: %w", ErrInvalid)
		}
	}
	return nil
}

// NotifyBlocks says that blocks are in Blocks now: peers that asked for them,
// and were allowed to, get them, and so do running fetches.
func (p *Peer) NotifyBlocks(ctx context.Context, blks ...blocks.Block) error {
	if p.exchange == nil {
		return fmt.Errorf("space peer %s has no blocks: %w", p.id, ErrInvalid)
	}
	e, leave, err := p.exchange.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return e.NotifyNewBlocks(ctx, blks...)
}
