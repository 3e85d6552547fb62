package replication

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Bounds that tests go to.
const (
	MaxFrame      = maxFrame
	MaxRequest    = maxRequest
	MaxHelloFrame = maxHelloFrame
	MaxGossip     = maxGossip
	OffenceLimit  = offenceLimit
	OffenceLife   = offenceLife
	BanTime       = banTime
)

// MostTips chooses the tips that are told when there are too many.
var MostTips = mostTips

// FetchChunks fetches what an assembly lacks.
var FetchChunks = fetchChunks

// Nonces are those of one handshake. Version zero is the first.
type Nonces struct {
	Dialer, Responder [32]byte
	Version           protocol.ID
}

// Frame puts a length before a message.
func Frame(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// HelloNonce is the frame with which a responder begins.
func HelloNonce(n [32]byte) []byte { return Frame(encoded(nonceMessage{Nonce: n})) }

// HelloProof is the frame with which a side proves itself.
func HelloProof(nonce, tag [32]byte, chain [][]byte) []byte {
	return Frame(encoded(proofMessage{Nonce: nonce, Tag: tag, Chain: chain}))
}

// Proof is the same in the version of a handshake; the second one tells something encoded.
func Proof(n Nonces, tag [32]byte, chain [][]byte, told []byte) []byte {
	if n.Version == HelloProtocol {
		return Frame(encoded(proofFields{Nonce: n.Dialer, Tag: tag, Chain: chain, Told: told}))
	}
	return HelloProof(n.Dialer, tag, chain)
}

// Told is what a host tells of its release.
func Told(h hostlog.Hello) []byte {
	b, err := encodeTold(h)
	if err != nil {
		panic(err)
	}
	return b
}

// DecodeTold reads that.
var DecodeTold = decodeTold

// FieldsNonce is the first frame of the second version.
func FieldsNonce(n [32]byte) []byte { return Frame(encoded(nonceFields{Nonce: n})) }

// TryGreeting decodes a frame of the second version of the handshake, and returns the known part encoded again, nil
// when it is none.
func TryGreeting(b []byte) (again []byte, err error) {
	var p proofFields
	if err = wire.decode(b, &p); err == nil {
		return encoded(p), nil
	}
	var n nonceFields // every proof is one, too
	if err = wire.decode(b, &n); err == nil {
		return encoded(n), nil
	}
	return nil, err
}

// NonceOf reads the nonce of a responder's first frame.
func NonceOf(frame []byte) (n [32]byte, err error) {
	_, k := binary.Uvarint(frame)
	var m nonceMessage
	if err = wire.decode(frame[k:], &m); err != nil {
		var m nonceFields
		err = wire.decode(frame[k:], &m)
		return m.Nonce, err
	}
	return m.Nonce, nil
}

// HelloTag is the tag of the dialer, or of the responder, who tells something.
func HelloTag(space tinycloud.SpaceID, dialer, responder peer.ID, n Nonces, ofDialer bool, told ...byte) [32]byte {
	role := roleAnswerer
	if ofDialer {
		role = roleDialer
	}
	hs := &handshake{version: n.Version, dialer: n.Dialer, responder: n.Responder}
	if hs.version == "" {
		hs.version = FirstHello
	}
	return helloTag(space, dialer, responder, hs, role, told)
}

func encoded(v any) []byte {
	b, err := wire.encode(v)
	if err != nil {
		panic(err)
	}
	return b
}

// OpenFrame begins a round, SameFrame ends one.
func OpenFrame(hash tinycloud.Hash) []byte {
	return Frame(encoded(message{Open: &openMessage{Now: nowMillis(), Hash: hash}}))
}

// OpenFrameAt begins a round at another time.
func OpenFrameAt(at time.Time, hash tinycloud.Hash) []byte {
	return Frame(encoded(message{Open: &openMessage{Now: at.UnixMilli(), Hash: hash}}))
}

// HaveFrame asks for what a host without entries lacks.
func HaveFrame() []byte { return Frame(encoded(message{Have: &haveMessage{}})) }

// DoneFrame ends a stream of batches.
func DoneFrame() []byte { return Frame(encoded(message{Done: &stateMessage{Now: nowMillis()}})) }

// TipsFrame answers open.
func TipsFrame(tips []hostlog.Tip) []byte {
	return Frame(encoded(message{Tips: &tipsMessage{Now: nowMillis(), Tips: packTips(tips)}}))
}

// BatchMessage is a gossip message.
func BatchMessage(bundles ...hostlog.Bundle) []byte {
	m, err := packBundles(bundles)
	if err != nil {
		panic(err)
	}
	return encoded(message{Batch: m})
}

// AnnounceMessage is a gossip message that names an entry.
func AnnounceMessage(b hostlog.Bundle) []byte {
	return encoded(announcement(map[hostlog.Key]hostlog.Bundle{b.Entry.Host: b}))
}

// Spell decodes a message and encodes what it means again: batches bundle by bundle.
func Spell(space tinycloud.SpaceID, b []byte) (kind string, again []byte, err error) {
	m, err := decodeMessage(b)
	if err != nil {
		return "", nil, err
	}
	if m.Batch != nil {
		bundles, err := m.Batch.bundles(space)
		if err != nil {
			return "", nil, err
		}
		if m.Batch, err = packBundles(bundles); err != nil {
			return "", nil, err
		}
		kind = "batch"
	}
	again, err = wire.encode(m)
	return kind, again, err
}

// ReadFrames reads frames until an error.
func ReadFrames(s interface {
	deadliner
	Read([]byte) (int, error)
	Write([]byte) (int, error)
}, limit int,
) (frames [][]byte, err error) {
	f := newFramer(s, limit, syncStall, func(int, int) {})
	for {
		b, err := f.read()
		if err != nil {
			return frames, err
		}
		frames = append(frames, b)
	}
}

// Bundles reads a batch.
func Bundles(space tinycloud.SpaceID, b []byte) ([]hostlog.Bundle, error) {
	m, err := decodeMessage(b)
	if err != nil {
		return nil, err
	}
	return m.Batch.bundles(space)
}

// SampleMessages has one message of each kind.
func SampleMessages() map[string][]byte {
	h := tinycloud.Sum([]byte("x"))
	tips := packTips([]hostlog.Tip{{Host: hostlog.Key(h), N: 300, Digest: h}, {N: 1}})
	return map[string][]byte{
		"open":     encoded(message{Open: &openMessage{Now: 1, Hash: h}}),
		"same":     encoded(message{Same: &stateMessage{Now: 1, Joining: true}}),
		"tips":     encoded(message{Tips: &tipsMessage{Now: 1, Tips: tips, More: true}}),
		"have":     encoded(message{Have: &haveMessage{Tips: tips, Ahead: true}}),
		"part":     encoded(message{Part: &partMessage{Data: []byte("abc"), Last: true}}),
		"ack":      encoded(message{Ack: &ackMessage{Durable: 7}}),
		"done":     encoded(message{Done: &stateMessage{Now: 1}}),
		"locate":   encoded(message{Locate: &locateMessage{Hashes: []tinycloud.Hash{h}}}),
		"located":  encoded(message{Located: &locatedMessage{Values: []location{{Size: -1}, {Size: 9, Manifest: h}}}}),
		"hosts":    encoded(message{Hosts: &hostsMessage{Records: [][]byte{[]byte("r")}, Generation: 1, Secret: h}}),
		"share":    encoded(message{Share: &shareMessage{Have: tips, Goal: tips}}),
		"span":     encoded(message{Span: &spanMessage{First: 0, Last: -1}}),
		"range":    encoded(message{Range: &spanMessage{First: 3, Last: 300}}),
		"end":      encoded(message{End: &endMessage{Last: 200}}),
		"rest":     encoded(message{Rest: &restMessage{Hash: h}}),
		"announce": encoded(message{Announce: &announceMessage{Entries: []announcedEntry{{Entry: []byte("e"), Sig: []byte("s")}}}}),
	}
}

// TryRecord parses a peer record.
func TryRecord(b []byte) error {
	_, _, err := parseRecord(b)
	return err
}

// PackLive returns the gossip messages for bundles, and how many fit none.
func PackLive(bundles []hostlog.Bundle) (messages [][]byte, large int) {
	packed, left := packLive(bundles)
	for _, m := range packed {
		messages = append(messages, encoded(m))
	}
	return messages, len(left)
}

// WhereQuestion is the frame that asks, for any peers and nonces.
func WhereQuestion(ctx context.Context, l *Locator, caller, responder peer.ID, n Nonces, space tinycloud.SpaceID) ([]byte, error) {
	run := &whereRun{caller: caller, responder: responder, hs: handshake{dialer: n.Dialer, responder: n.Responder}}
	q, err := l.question(ctx, run, run.digest(), space, secretOf(space))
	return Frame(encoded(q)), err
}

// TryWhere decodes a frame of a question, and what is sealed in one. Only one spelling says that there is none.
func TryWhere(b []byte) {
	_ = wire.decode(b, &whereMessage{})
	_ = wire.decode(b, &whereProof{})
	var a whereAnswer
	if err := wire.decode(b, &a); err == nil && a == (whereAnswer{}) && !bytes.Equal(Frame(b), NoneAnswer()) {
		panic("another spelling of none")
	}
}

// NoneAnswer is the frame that says that there is none.
func NoneAnswer() []byte { return Frame(encoded(whereAnswer{})) }

// AnswerTag decodes an answer as every version does.
func AnswerTag(frame []byte) ([32]byte, error) {
	var a whereAnswer
	err := wire.decode(frame[1:], &a)
	return a.Tag, err
}

// RefusedAfter is how long a refused question takes.
const RefusedAfter = refusedAfter

// Progress is what a replica counts while it catches up.
type Progress struct{ p progress }

// Begin says that a stream will bring a number of entries.
func (p *Progress) Begin(now time.Time, missing int64) { p.p.begin(now, missing) }

// Add notes entries that came.
func (p *Progress) Add(now time.Time, n int) { p.p.add(now, n) }

// End says that the stream ended.
func (p *Progress) End(now time.Time) { p.p.end(now) }

// View returns what is shown.
func (p *Progress) View(now time.Time) *CatchUp { return p.p.view(now) }

// Offenders are the hosts that sent what no honest host sends.
func (r *Replica) Offenders() []hostlog.Key {
	r.offences.mu.Lock()
	defer r.offences.mu.Unlock()
	return slices.Collect(maps.Keys(r.offences.m))
}

// Sharing sets how many entries have to be missing for them to be taken from several peers at once, and how many bytes
// each is asked for.
func (r *Replica) Sharing(from, portion int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shareFrom, r.portion = from, portion
}

// Take waits for a part of what a budget has for taking.
func (b *Budget) Take(ctx context.Context, space tinycloud.SpaceID, bytes int64) error {
	return b.take.acquire(ctx, space, bytes)
}

// TryTake takes a part that nobody waits for.
func (b *Budget) TryTake(space tinycloud.SpaceID, bytes int64) bool {
	return b.take.tryAcquire(space, bytes)
}

// Return ends what Take began.
func (b *Budget) Return(space tinycloud.SpaceID, bytes int64) { b.take.release(space, bytes) }

// Window bounds what is sent and not durable.
type Window struct{ w *window }

// NewWindow returns a window for a way there and back.
func NewWindow(way time.Duration) Window { return Window{newWindow(way)} }

// Add reports whether a batch may be sent, and counts it then.
func (w Window) Add(size int, at time.Time) bool { return w.w.add(size, at) }

// Ack says that the oldest batch is durable.
func (w Window) Ack(at time.Time) { w.w.ack(at) }

// Bytes is what is sent and not durable.
func (w Window) Bytes() int { return w.w.bytes }

// BatchAfter is how long a batch is after bytes of other ones.
func BatchAfter(before int) int { return (&batcher{before: before}).limit() }

// PairTag is the tag of the dialer that shows an invite, or of the responder.
func PairTag(secret [32]byte, dialer, responder peer.ID, n Nonces, ofDialer bool) [32]byte {
	role := roleAnswerer
	if ofDialer {
		role = roleDialer
	}
	return pairTag(secret, dialer, responder, &handshake{dialer: n.Dialer, responder: n.Responder}, role)
}

// PairFrame is the frame in which an invite is shown.
func PairFrame(nonce, secret, tag [32]byte, addrs ...string) []byte {
	return Frame(encoded(pairMessage{Nonce: nonce, Secret: secret, Tag: tag, Addrs: addrs}))
}

// PairAnswer is the frame that answers it.
func PairAnswer(tag [32]byte, addrs ...string) []byte {
	return Frame(encoded(pairAnswer{Tag: tag, Addrs: addrs}))
}

// SpellPair decodes a frame of pairing and encodes what it means again.
func SpellPair(b []byte) (again [][]byte) {
	var q pairMessage
	if wire.decode(b, &q) == nil {
		again = append(again, encoded(q))
	}
	var a pairAnswer
	if wire.decode(b, &a) == nil {
		again = append(again, encoded(a))
	}
	return again
}

// PairAddrs are the addresses that another node is told.
var PairAddrs = pairAddrs

// WhereNone is the frame that says that a node has no part in a Space.
func WhereNone() []byte { return Frame(encoded(whereAnswer{})) }
