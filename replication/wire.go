package replication

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/libp2p/go-libp2p/core/protocol"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Names on the wire.
const (
	HelloProtocol = "/tinycloud/hello/2"
	FirstHello    = "/tinycloud/hello/1" // of releases that tell nothing of themselves
	SyncProtocol  = "/tinycloud/sync/1"
	WhereProtocol = "/tinycloud/where/1" // between fronts
	PairProtocol  = "/tinycloud/pair/1"  // likewise
	Topic         = "tinycloud/1"
)

// HelloProtocols are the versions of the handshake that [Replica.ServeHello] serves, the best first.
func HelloProtocols() []protocol.ID { return []protocol.ID{HelloProtocol, FirstHello} }

// Bounds on the wire.
const (
	maxFrame      = 1280 << 10 // bytes of one frame of the sync protocol
	maxRequest    = 384 << 10  // bytes of one frame from whoever opened the stream
	maxHelloFrame = 60 << 10   // with what libp2p adds it stays below 64 KiB
	maxGossip     = 64 << 10   // bytes of one gossip message
	maxBatch      = 1 << 20    // bytes of bundles in one batch, unless one bundle alone is longer
	maxBatchCount = 512        // bundles of one batch
	firstBatch    = 64 << 10   // the same of the first batches of a stream
	readAhead     = 2          // batches read from the store before they can be sent
	shareBatch    = 128 << 10  // bytes of bundles in one batch of a range
	portionSize   = 256 << 10  // bytes that a range should have
	maxPortions   = 12         // ranges asked for, or here, before the first of them is durable
	firstLevels   = 4          // seqs of the first range
	maxLevels     = 4096       // seqs of one range
	maxPart       = 1 << 20    // bytes of one part of a batch that is longer than a frame
	maxJoined     = hostlog.MaxBundle + 64<<10
	maxTips       = 65536 // tips of one Space
	tipsPerPage   = 4096
	maxRecords    = 256     // host records of one message
	maxRecord     = 2 << 10 // bytes of one host record
	maxAnnounced  = 64      // log entries of one announcement
	maxLocated    = 256     // values of one question
	maxFields     = 256     // of one message, with those that are not known here
)

// message is one frame of the sync protocol or one gossip message. Exactly one field is set. Newer releases may add
// fields, which older ones pass over; what a field holds never changes its form.
type message struct {
	// more says that it came with fields that are not known here.
	more bool

	Open     *openMessage     `cbor:"open,omitempty"`
	Same     *stateMessage    `cbor:"same,omitempty"`
	Tips     *tipsMessage     `cbor:"tips,omitempty"`
	Have     *haveMessage     `cbor:"have,omitempty"`
	Batch    *batchMessage    `cbor:"batch,omitempty"`
	Part     *partMessage     `cbor:"part,omitempty"`
	Ack      *ackMessage      `cbor:"ack,omitempty"`
	Done     *stateMessage    `cbor:"done,omitempty"`
	Locate   *locateMessage   `cbor:"locate,omitempty"`
	Located  *locatedMessage  `cbor:"located,omitempty"`
	Hosts    *hostsMessage    `cbor:"hosts,omitempty"`
	Announce *announceMessage `cbor:"announce,omitempty"`
	Share    *shareMessage    `cbor:"share,omitempty"`
	Span     *spanMessage     `cbor:"span,omitempty"`
	Range    *spanMessage     `cbor:"range,omitempty"`
	End      *endMessage      `cbor:"end,omitempty"`
	Rest     *restMessage     `cbor:"rest,omitempty"`
}

func (m *message) fields() (n int) {
	for _, set := range []bool{
		m.Open != nil, m.Same != nil, m.Tips != nil, m.Have != nil, m.Batch != nil, m.Part != nil, m.Ack != nil,
		m.Done != nil, m.Locate != nil, m.Located != nil, m.Hosts != nil, m.Announce != nil,
		m.Share != nil, m.Span != nil, m.Range != nil, m.End != nil, m.Rest != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

// openMessage begins a round: the puller's clock and the hash of its tips.
type openMessage struct {
	_    struct{} `cbor:",toarray"`
	Now  int64    // unix milliseconds
	Hash tinycloud.Hash
}

// stateMessage ends a round: the tips are equal, or everything was sent.
type stateMessage struct {
	_       struct{} `cbor:",toarray"`
	Now     int64    // unix milliseconds
	Joining bool     // the sender itself still waits for the Space's history
}

// tipsMessage is a page of the tips of whoever was asked.
type tipsMessage struct {
	_       struct{} `cbor:",toarray"`
	Now     int64    // unix milliseconds
	Tips    []wireTip
	More    bool
	Joining bool // the sender itself still waits for the Space's history
}

// haveMessage is a page of what the puller has.
type haveMessage struct {
	_     struct{} `cbor:",toarray"`
	Tips  []wireTip
	More  bool
	Ahead bool // the puller has entries that the other side lacks
	Stop  bool // the puller wants nothing now
}

type wireTip struct {
	_      struct{} `cbor:",toarray"`
	Host   [32]byte
	N      uint64
	Digest tinycloud.Hash
}

// partMessage is a piece of an encoded batch.
type partMessage struct {
	_    struct{} `cbor:",toarray"`
	Data []byte
	Last bool
}

// ackMessage says how many batches of the stream are durable.
type ackMessage struct {
	_       struct{} `cbor:",toarray"`
	Durable uint64
}

type locateMessage struct {
	_      struct{} `cbor:",toarray"`
	Hashes []tinycloud.Hash
}

// locatedMessage tells how to fetch the values asked for, in the same order.
type locatedMessage struct {
	_      struct{} `cbor:",toarray"`
	Values []location
}

type location struct {
	_        struct{}       `cbor:",toarray"`
	Size     int64          // bytes; -1: not here
	Manifest tinycloud.Hash // zero when the value is one block
}

type hostsMessage struct {
	_       struct{} `cbor:",toarray"`
	Records [][]byte // signed peer records
	// The rendezvous secret of the Space; zero when the sender has none yet.
	Generation int64
	Secret     tinycloud.Hash
}

// announceMessage names log entries without what they bring.
type announceMessage struct {
	_       struct{} `cbor:",toarray"`
	Entries []announcedEntry
}

type announcedEntry struct {
	_     struct{} `cbor:",toarray"`
	Entry []byte
	Sig   []byte
}

// shareMessage begins a stream of ranges: what the puller has, and up to where it wants to come.
type shareMessage struct {
	_    struct{} `cbor:",toarray"`
	Have []wireTip
	Goal []wireTip
}

// spanMessage is a range of seq, both ends included: of what can be asked for, empty when First is beyond Last, or of
// what is asked for.
type spanMessage struct {
	_     struct{} `cbor:",toarray"`
	First int64
	Last  int64
}

// endMessage says up to which seq a range was sent.
type endMessage struct {
	_    struct{} `cbor:",toarray"`
	Last int64
}

// restMessage asks whether a host may leave until there is something new, and is the answer: the hash of the tips that
// both have, or zero from who does not agree.
type restMessage struct {
	_    struct{} `cbor:",toarray"`
	Hash tinycloud.Hash
}

// whereMessage and whereAnswer are the frames of a question for a Space's peer; a nonceMessage comes first. An answer of
// zeros says that there is none; askers that don't know it take it for one of another question.
type whereMessage struct {
	_      struct{} `cbor:",toarray"`
	Nonce  [32]byte
	Tag    [32]byte
	Sealed []byte // a whereProof
}

type whereProof struct {
	_     struct{} `cbor:",toarray"`
	Host  [32]byte
	Sig   [64]byte
	Chain [][]byte // the host's delegation and its proofs
}

type whereAnswer struct {
	_    struct{} `cbor:",toarray"`
	Tag  [32]byte
	Host [32]byte // of the Space peer
}

// pairMessage and pairAnswer are the frames in which an invite is used; a nonceMessage comes first.
type pairMessage struct {
	_      struct{} `cbor:",toarray"`
	Nonce  [32]byte
	Secret [32]byte // of the invite
	Tag    [32]byte
	Addrs  []string // of the sender's front, without /p2p
}

type pairAnswer struct {
	_     struct{} `cbor:",toarray"`
	Tag   [32]byte
	Addrs []string // as above
}

// codec is the one way messages are written and read.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() codec {
	enc, err := cbor.EncOptions{
		Sort: cbor.SortLengthFirst, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
	}.EncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive, MaxNestedLevels: 10, MaxArrayElements: maxTips, MaxMapPairs: maxFields,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return codec{enc, dec}
}

// wire never changes.
var wire = newCodec()

func (c codec) encode(v any) ([]byte, error) {
	b, err := c.enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("message: %w: %w", err, tinycloud.ErrInvalid)
	}
	return b, nil
}

// decode reads one item and refuses any spelling of it but encode's. Fields of a message that are not known here, from
// a newer host, are passed over.
func (c codec) decode(b []byte, v any) error {
	_, err := c.decodeKnown(b, v)
	return err
}

// decodeKnown does the same, and reports whether there were fields that are not known here.
func (c codec) decodeKnown(b []byte, v any) (more bool, err error) {
	if err := c.dec.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("message: %v: %w", err, tinycloud.ErrInvalid)
	}
	again, err := c.encode(v)
	if err != nil || bytes.Equal(again, b) {
		return false, err
	}
	known, err := c.reduce(b, again)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(known, again) {
		return false, fmt.Errorf("message is not canonical: %w", tinycloud.ErrInvalid)
	}
	return true, nil
}

// reduce drops the fields of an encoded message that another one does not have.
func (c codec) reduce(b, to []byte) ([]byte, error) {
	var all, some map[string]cbor.RawMessage
	if err := errors.Join(c.dec.Unmarshal(b, &all), c.dec.Unmarshal(to, &some)); err != nil {
		return nil, fmt.Errorf("message is not canonical: %v: %w", err, tinycloud.ErrInvalid)
	}
	if whole, err := c.encode(all); err != nil || !bytes.Equal(whole, b) {
		return nil, errors.Join(err, fmt.Errorf("message is not canonical: %w", tinycloud.ErrInvalid))
	}
	maps.DeleteFunc(all, func(name string, _ cbor.RawMessage) bool { return some[name] == nil })
	return c.encode(all)
}

// decodeMessage reads a message; space gives its bundles their meaning, so that a batch is only accepted
// in its one spelling. The error is of class [tinycloud.ErrUnsupported] for one of a kind that only newer hosts know,
// which is no offence.
func decodeMessage(b []byte) (m *message, err error) {
	m = &message{}
	if m.more, err = wire.decodeKnown(b, m); err != nil {
		return nil, err
	}
	if m.more && m.fields() == 0 {
		return nil, fmt.Errorf("message of a newer kind: %w", tinycloud.ErrUnsupported)
	}
	if m.fields() != 1 {
		return nil, fmt.Errorf("message with %d meanings: %w", m.fields(), tinycloud.ErrInvalid)
	}
	if err := m.bounds(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *message) bounds() error {
	over := func(what string, n, limit int) error {
		return fmt.Errorf("message with %d %s, at most %d: %w", n, what, limit, tinycloud.ErrInvalid)
	}
	switch {
	case m.Tips != nil && len(m.Tips.Tips) > tipsPerPage:
		return over("tips", len(m.Tips.Tips), tipsPerPage)
	case m.Have != nil && len(m.Have.Tips) > tipsPerPage:
		return over("tips", len(m.Have.Tips), tipsPerPage)
	case m.Share != nil && len(m.Share.Have)+len(m.Share.Goal) > tipsPerPage:
		return over("tips", len(m.Share.Have)+len(m.Share.Goal), tipsPerPage)
	case m.Batch != nil && len(m.Batch.Entries) > maxBatchCount:
		return over("entries", len(m.Batch.Entries), maxBatchCount)
	case m.Locate != nil && len(m.Locate.Hashes) > maxLocated:
		return over("values", len(m.Locate.Hashes), maxLocated)
	case m.Located != nil && len(m.Located.Values) > maxLocated:
		return over("values", len(m.Located.Values), maxLocated)
	case m.Hosts != nil && len(m.Hosts.Records) > maxRecords:
		return over("records", len(m.Hosts.Records), maxRecords)
	case m.Announce != nil && len(m.Announce.Entries) > maxAnnounced:
		return over("announced entries", len(m.Announce.Entries), maxAnnounced)
	}
	return nil
}

// deadliner is what a stream needs for a peer that stops halfway to be noticed.
type deadliner interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// framer reads and writes frames. One goroutine reads, one writes.
type framer struct {
	in    *bufio.Reader
	out   *bufio.Writer
	limit int // bytes of a frame that is read
	d     deadliner
	stall time.Duration
	count func(in, out int)
}

func newFramer(s interface {
	io.ReadWriter
	deadliner
}, limit int, stall time.Duration, count func(in, out int),
) *framer {
	return &framer{in: bufio.NewReader(s), out: bufio.NewWriter(s), limit: limit, d: s, stall: stall, count: count}
}

// read returns the bytes of the next frame. The error is io.EOF at the end of the stream, and of class
// [tinycloud.ErrInvalid] for a length that no peer should send.
func (f *framer) read() ([]byte, error) {
	if err := f.d.SetReadDeadline(time.Now().Add(f.stall)); err != nil {
		return nil, err
	}
	var head [3]byte // enough for any length within the limit
	n, size := 0, uint64(0)
	for {
		c, err := f.in.ReadByte()
		if err != nil {
			if n > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		head[n] = c
		n++
		if c < 0x80 {
			break
		}
		if n == len(head) {
			return nil, fmt.Errorf("frame length: %w", tinycloud.ErrInvalid)
		}
	}
	size, _ = binary.Uvarint(head[:n])
	if size == 0 || size > uint64(f.limit) || n > 1 && head[n-1] == 0 {
		return nil, fmt.Errorf("frame of %d bytes: %w", size, tinycloud.ErrInvalid)
	}
	b, err := readBody(f.in, int(size))
	f.count(n+len(b), 0)
	return b, err
}

// readBody grows with what really arrives: a length alone takes no memory.
func readBody(r io.Reader, size int) ([]byte, error) {
	const step = 64 << 10
	if size <= step {
		b := make([]byte, size)
		_, err := io.ReadFull(r, b)
		return b, noEOF(err)
	}
	var buf bytes.Buffer
	buf.Grow(step)
	if _, err := io.CopyN(&buf, r, int64(size)); err != nil {
		return nil, noEOF(err)
	}
	return buf.Bytes(), nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// write sends one frame.
func (f *framer) write(b []byte) error {
	if err := f.d.SetWriteDeadline(time.Now().Add(f.stall)); err != nil {
		return err
	}
	head := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen64), uint64(len(b)))
	if _, err := f.out.Write(head); err != nil {
		return err
	}
	if _, err := f.out.Write(b); err != nil {
		return err
	}
	f.count(0, len(head)+len(b))
	return f.out.Flush()
}

// get reads a message.
func (f *framer) get() (*message, error) {
	b, err := f.read()
	if err != nil {
		return nil, err
	}
	return decodeMessage(b)
}

// put writes a message.
func (f *framer) put(m *message) error {
	b, err := wire.encode(m)
	if err != nil {
		return err
	}
	return f.write(b)
}
