package replication

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	maxAddrs       = 16
	maxRecordBytes = 256 << 10 // of all records of one message
	recordPrefix   = "record:" // before the signed record that stands last among a host's addresses
)

// ownRecord is this host's signed record, made again only when its addresses change.
type ownRecord struct {
	mu    sync.Mutex
	addrs []ma.Multiaddr // guarded by mu
	bytes []byte         // guarded by mu
}

// sign returns the record of this host's addresses, nil when it has none.
func (r *Replica) sign() ([]byte, error) {
	if r.o.Addrs == nil {
		return nil, nil
	}
	var addrs []ma.Multiaddr
	for _, a := range r.o.Addrs() {
		if _, id := peer.SplitAddr(a); id == r.self && len(addrs) < maxAddrs {
			addrs = append(addrs, a)
		}
	}
	r.records.mu.Lock()
	defer r.records.mu.Unlock()
	if len(addrs) == 0 || slices.EqualFunc(addrs, r.records.addrs, ma.Multiaddr.Equal) {
		return r.records.bytes, nil
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(r.o.Key)
	if err != nil {
		return nil, fmt.Errorf("space key: %w", tinycloud.ErrInvalid)
	}
	env, err := record.Seal(&peer.PeerRecord{PeerID: r.self, Addrs: addrs, Seq: peer.TimestampSeq()}, key)
	if err != nil {
		return nil, err
	}
	b, err := env.Marshal()
	if err != nil {
		return nil, err
	}
	r.records.addrs, r.records.bytes = addrs, b
	return b, nil
}

// parseRecord checks a signed record. The error is of class [tinycloud.ErrInvalid] or
// [tinycloud.ErrForged].
func parseRecord(b []byte) (*peer.PeerRecord, hostlog.Key, error) {
	if len(b) > wire.MaxRecord {
		return nil, hostlog.Key{}, fmt.Errorf("peer record of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	env, untyped, err := record.ConsumeEnvelope(b, peer.PeerRecordEnvelopeDomain)
	if err != nil {
		return nil, hostlog.Key{}, fmt.Errorf("peer record: %v: %w", err, tinycloud.ErrForged)
	}
	rec, ok := untyped.(*peer.PeerRecord)
	if !ok || !rec.PeerID.MatchesPublicKey(env.PublicKey) || len(rec.Addrs) > maxAddrs {
		return nil, hostlog.Key{}, fmt.Errorf("peer record: %w", tinycloud.ErrForged)
	}
	for _, a := range rec.Addrs {
		if _, id := peer.SplitAddr(a); id != rec.PeerID {
			return nil, hostlog.Key{}, fmt.Errorf("peer record: address of another peer: %w", tinycloud.ErrInvalid)
		}
	}
	host, err := wire.HostOf(rec.PeerID)
	return rec, host, err
}

// splitRecord takes the stored addresses of a host apart.
func splitRecord(stored []string) (addrs []string, rec []byte) {
	for _, a := range stored {
		encoded, ok := strings.CutPrefix(a, recordPrefix)
		if !ok {
			addrs = append(addrs, a)
			continue
		}
		if b, err := base64.RawURLEncoding.DecodeString(encoded); err == nil {
			rec = b
		}
	}
	return addrs, rec
}

func joinRecord(rec *peer.PeerRecord, b []byte) []string {
	out := make([]string, 0, len(rec.Addrs)+1)
	for _, a := range rec.Addrs {
		out = append(out, a.String())
	}
	return append(out, recordPrefix+base64.RawURLEncoding.EncodeToString(b))
}

// known returns what to tell other hosts: the Space's rendezvous secret, this host's own record and all that
// are stored. With renew a missing secret is made: by whoever is asked and was told none, so that a newcomer,
// which asks, learns that of the others before it could make one. Who waits for the history of the others
// makes none either: it is not theirs.
func (r *Replica) known(ctx context.Context, renew bool) (*wire.Hosts, error) {
	own, err := r.sign()
	if err != nil {
		return nil, err
	}
	meet, err := r.o.Store.Rendezvous(ctx, r.space, renew && !r.isJoining())
	if err != nil {
		return nil, err
	}
	hosts, err := r.o.Store.Hosts(ctx, r.space)
	if err != nil {
		return nil, err
	}
	out := &wire.Hosts{Generation: meet.Generation, Secret: meet.Secret}
	size := 0
	add := func(b []byte) {
		if b != nil && len(out.Records) < wire.MaxRecords && size+len(b) <= maxRecordBytes {
			out.Records = append(out.Records, b)
			size += len(b) + 5
		}
	}
	add(own)
	for _, h := range hosts {
		if _, rec := splitRecord(h.Addrs); !h.Self {
			add(rec)
		}
	}
	return out, nil
}

// digestOf tells whether a peer was told the same before, in whatever order.
func digestOf(m *wire.Hosts) tinycloud.Hash {
	sums := make([]tinycloud.Hash, len(m.Records))
	for i, rec := range m.Records {
		sums[i] = tinycloud.Sum(rec)
	}
	slices.SortFunc(sums, func(a, b tinycloud.Hash) int { return bytes.Compare(a[:], b[:]) })
	b := append(binary.BigEndian.AppendUint64(nil, uint64(m.Generation)), m.Secret[:]...)
	for _, h := range sums {
		b = append(b, h[:]...)
	}
	return tinycloud.Sum(b)
}

// exchange tells a peer the known addresses, unless it has them from us, and takes what it knows.
func (r *Replica) exchange(ctx context.Context, m *remote) error {
	ours, err := r.known(ctx, false)
	if err != nil {
		return own(err)
	}
	theirs, err := r.tell(ctx, m, ours)
	if err != nil || theirs == nil || !ours.Secret.IsZero() || !theirs.Secret.IsZero() {
		return err
	}
	// The peer waits for the history and makes no secret.
	if ours, err = r.known(ctx, true); err != nil {
		return own(err)
	}
	_, err = r.tell(ctx, m, ours)
	return err
}

// tell returns what a peer answers, nil if it was told the same before.
func (r *Replica) tell(ctx context.Context, m *remote, ours *wire.Hosts) (*wire.Hosts, error) {
	if !r.news(m, digestOf(ours)) {
		return nil, nil
	}
	answer, err := r.ask(ctx, m, &wire.Message{Hosts: ours}, wire.MaxRequest)
	if err != nil {
		return nil, err
	}
	if answer.Hosts == nil {
		return nil, fmt.Errorf("answer to hosts: %w", tinycloud.ErrInvalid)
	}
	later, err := r.learn(ctx, m, answer.Hosts)
	if later {
		r.news(m, tinycloud.Hash{})
	}
	return answer.Hosts, err
}

func (r *Replica) serveHosts(ctx context.Context, m *remote, f *wire.Framer, theirs *wire.Hosts) error {
	later, err := r.learn(ctx, m, theirs)
	if err != nil {
		return err
	}
	// Who shows one that can't be taken over yet has it taken over later.
	ours, err := r.known(ctx, theirs.Secret.IsZero())
	if err != nil {
		return own(err)
	}
	if !later {
		r.news(m, digestOf(ours))
	}
	return f.Put(&wire.Message{Hosts: ours})
}

// learn takes over what a peer knows; later says that it has to be asked again.
func (r *Replica) learn(ctx context.Context, m *remote, theirs *wire.Hosts) (later bool, err error) {
	meet := hostlog.Rendezvous{Generation: theirs.Generation, Secret: theirs.Secret}
	if err := r.o.Store.SaveRendezvous(ctx, r.space, m.host, meet); err != nil {
		return false, own(err)
	}
	ours, err := r.o.Store.Rendezvous(ctx, r.space, false)
	if err != nil {
		return false, own(err)
	}
	later, err = r.saveRecords(ctx, m, theirs.Records)
	return later || ours != meet, err
}

// news notes what a peer was told last; it reports whether that is something else.
func (r *Replica) news(m *remote, hash tinycloud.Hash) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.sent == hash {
		return false
	}
	m.sent = hash
	return true
}

// saveRecords stores the records of hosts of the Space. One of a host whose delegation is not here yet is
// left for later.
func (r *Replica) saveRecords(ctx context.Context, m *remote, records [][]byte) (later bool, err error) {
	hosts, err := r.o.Store.Hosts(ctx, r.space)
	if err != nil {
		return false, own(err)
	}
	stored := map[hostlog.Key]hostlog.Host{}
	for _, h := range hosts {
		stored[h.Host] = h
	}
	changed := false
	for _, b := range records {
		rec, host, err := parseRecord(b)
		if err != nil {
			return false, err
		}
		h, ok := stored[host]
		later = later || host != r.host && !ok && host != m.host
		if host == r.host || !ok && host != m.host || ok && len(h.Addrs) > 0 && rec.Seq <= h.Seq {
			continue
		}
		if err := r.o.Store.SaveAddrs(ctx, r.space, host, joinRecord(rec, b), rec.Seq); err != nil {
			return false, own(err)
		}
		changed = true
	}
	if changed {
		r.dialer.refresh()
	}
	return later, nil
}
