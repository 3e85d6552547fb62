package wire

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/protocol"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Names on the wire.
const (
	HelloProtocol = "/tinycloud/hello/2"
	FirstHello    = "/tinycloud/hello/1" // of releases that tell nothing of themselves
	SyncProtocol  = "/tinycloud/sync/1"
	PairProtocol  = "/tinycloud/pair/1" // between fronts
	KeysProtocol  = "/tinycloud/keys/1" // between hosts of a Space of secrets
	Topic         = "tinycloud/1"
)

// HelloProtocols are the versions of the handshake that are served, the best first.
func HelloProtocols() []protocol.ID { return []protocol.ID{HelloProtocol, FirstHello} }

// Bounds on the wire.
const (
	MaxFrame      = 1280 << 10 // bytes of one frame of the sync protocol
	MaxRequest    = 384 << 10  // bytes of one frame from whoever opened the stream
	MaxHello      = 60 << 10   // with what libp2p adds it stays below 64 KiB
	MaxGossip     = 64 << 10   // bytes of one gossip message
	MaxBatch      = 1 << 20    // bytes of bundles in one batch, unless one bundle alone is longer
	MaxBatchCount = 512        // bundles of one batch
	maxPart       = 1 << 20    // bytes of one part of a batch that is longer than a frame
	MaxJoined     = hostlog.MaxBundle + 64<<10
	MaxTips       = 65536 // tips of one Space
	TipsPerPage   = 4096
	MaxRecords    = 256     // host records of one message
	MaxRecord     = 2 << 10 // bytes of one host record
	MaxAnnounced  = 64      // log entries of one announcement
	MaxLocated    = 256     // values of one question
	MaxSums       = 256     // of one question
	maxSumsBytes  = 256 << 10
	maxFields     = 256 // of one message, with those that are not known here
)

// Message is one frame of the sync protocol or one gossip message. Exactly one field is set. Newer releases may add
// fields, which older ones pass over; what a field holds never changes its form.
type Message struct {
	// More says that it came with fields that are not known here.
	More bool `cbor:"-"`

	Open     *Open     `cbor:"open,omitempty"`
	Same     *State    `cbor:"same,omitempty"`
	Tips     *Tips     `cbor:"tips,omitempty"`
	Have     *Have     `cbor:"have,omitempty"`
	Batch    *Batch    `cbor:"batch,omitempty"`
	Part     *Part     `cbor:"part,omitempty"`
	Ack      *Ack      `cbor:"ack,omitempty"`
	Done     *State    `cbor:"done,omitempty"`
	Locate   *Locate   `cbor:"locate,omitempty"`
	Located  *Located  `cbor:"located,omitempty"`
	Hosts    *Hosts    `cbor:"hosts,omitempty"`
	Announce *Announce `cbor:"announce,omitempty"`
	Share    *Share    `cbor:"share,omitempty"`
	Span     *Span     `cbor:"span,omitempty"`
	Rest     *Rest     `cbor:"rest,omitempty"`
	Sums     *Sums     `cbor:"sums,omitempty"`
}

func (m *Message) fields() (n int) {
	for _, set := range []bool{
		m.Open != nil, m.Same != nil, m.Tips != nil, m.Have != nil, m.Batch != nil, m.Part != nil, m.Ack != nil,
		m.Done != nil, m.Locate != nil, m.Located != nil, m.Hosts != nil, m.Announce != nil,
		m.Share != nil, m.Span != nil, m.Rest != nil, m.Sums != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

// Open begins a round: the puller's clock and the hash of its tips.
type Open struct {
	_    struct{} `cbor:",toarray"`
	Now  int64    // unix milliseconds
	Hash tinycloud.Hash
}

// State ends a round: the tips are equal, or everything was sent.
type State struct {
	_       struct{} `cbor:",toarray"`
	Now     int64    // unix milliseconds
	Joining bool     // the sender itself still waits for the Space's history
}

// Tips is a page of the tips of whoever was asked.
type Tips struct {
	_       struct{} `cbor:",toarray"`
	Now     int64    // unix milliseconds
	Tips    []Tip
	More    bool
	Joining bool // the sender itself still waits for the Space's history
}

// Have is a page of what the puller has.
type Have struct {
	_     struct{} `cbor:",toarray"`
	Tips  []Tip
	More  bool
	Ahead bool // the puller has entries that the other side lacks
	Stop  bool // the puller wants nothing now
}

// Tip is where a branch of a log ends.
type Tip struct {
	_      struct{} `cbor:",toarray"`
	Host   [32]byte
	N      uint64
	Digest tinycloud.Hash
}

// Part is a piece of an encoded batch.
type Part struct {
	_    struct{} `cbor:",toarray"`
	Data []byte
	Last bool
}

// Ack says how many batches of the stream are durable.
type Ack struct {
	_       struct{} `cbor:",toarray"`
	Durable uint64
}

// Locate asks how to fetch values.
type Locate struct {
	_      struct{} `cbor:",toarray"`
	Hashes []tinycloud.Hash
}

// Located tells how to fetch the values asked for, in the same order.
type Located struct {
	_      struct{} `cbor:",toarray"`
	Values []Location
}

// Location is how to fetch one value.
type Location struct {
	_        struct{}       `cbor:",toarray"`
	Size     int64          // bytes; -1: not here
	Manifest tinycloud.Hash // zero when the value is one block
}

// Hosts tells how to reach hosts, and the rendezvous secret.
type Hosts struct {
	_       struct{} `cbor:",toarray"`
	Records [][]byte // signed peer records
	// The rendezvous secret of the Space; zero when the sender has none yet.
	Generation int64
	Secret     tinycloud.Hash
}

// Announce names log entries without what they bring.
type Announce struct {
	_       struct{} `cbor:",toarray"`
	Entries []AnnouncedEntry
}

// AnnouncedEntry is an encoded log entry and its signature.
type AnnouncedEntry struct {
	_     struct{} `cbor:",toarray"`
	Entry []byte
	Sig   []byte
}

// Share asks for ranges of what the puller lacks. Only releases of before ask; the answer is an empty [Span].
type Share struct {
	_    struct{} `cbor:",toarray"`
	Have []Tip
	Goal []Tip
}

// Span is what can be had by ranges of seq, both ends included: empty, when First is beyond Last, as it is here.
type Span struct {
	_     struct{} `cbor:",toarray"`
	First int64
	Last  int64
}

// Rest asks whether a host may leave until there is something new, and is the answer: the hash of the tips that
// both have, or zero from who does not agree.
type Rest struct {
	_    struct{} `cbor:",toarray"`
	Hash tinycloud.Hash
}

// Pair and PairAnswer are the frames in which an invite is used; a Nonce comes first.
type Pair struct {
	_      struct{} `cbor:",toarray"`
	Nonce  [32]byte
	Secret [32]byte // of the invite
	Tag    [32]byte
	Addrs  []string // of the sender's front, without /p2p
}

// PairAnswer accepts an invite, see [Pair].
type PairAnswer struct {
	_     struct{} `cbor:",toarray"`
	Tag   [32]byte
	Addrs []string // as above
}

// DecodeMessage reads a message; space gives its bundles their meaning, so that a batch is only accepted
// in its one spelling. The error is of class [tinycloud.ErrUnsupported] for one of a kind that only newer hosts know,
// which is no offence.
// What is read may be parts of b.
func DecodeMessage(b []byte) (m *Message, err error) {
	m = &Message{}
	var plain bool
	if m.Batch, plain = batchOf(b); plain {
		return m, nil
	}
	if m.More, err = canonical.decodeKnown(b, m); err != nil {
		return nil, err
	}
	if m.More && m.fields() == 0 {
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

func (m *Message) bounds() error {
	over := func(what string, n, limit int) error {
		return fmt.Errorf("message with %d %s, at most %d: %w", n, what, limit, tinycloud.ErrInvalid)
	}
	switch {
	case m.Tips != nil && len(m.Tips.Tips) > TipsPerPage:
		return over("tips", len(m.Tips.Tips), TipsPerPage)
	case m.Have != nil && len(m.Have.Tips) > TipsPerPage:
		return over("tips", len(m.Have.Tips), TipsPerPage)
	case m.Share != nil && len(m.Share.Have)+len(m.Share.Goal) > TipsPerPage:
		return over("tips", len(m.Share.Have)+len(m.Share.Goal), TipsPerPage)
	case m.Batch != nil && len(m.Batch.Entries) > MaxBatchCount:
		return over("entries", len(m.Batch.Entries), MaxBatchCount)
	case m.Locate != nil && len(m.Locate.Hashes) > MaxLocated:
		return over("values", len(m.Locate.Hashes), MaxLocated)
	case m.Located != nil && len(m.Located.Values) > MaxLocated:
		return over("values", len(m.Located.Values), MaxLocated)
	case m.Hosts != nil && len(m.Hosts.Records) > MaxRecords:
		return over("records", len(m.Hosts.Records), MaxRecords)
	case m.Sums != nil && len(m.Sums.Sums) > MaxSums:
		return over("sums", len(m.Sums.Sums), MaxSums)
	case m.Announce != nil && len(m.Announce.Entries) > MaxAnnounced:
		return over("announced entries", len(m.Announce.Entries), MaxAnnounced)
	}
	return nil
}
