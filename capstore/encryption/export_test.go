package encryption

import (
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// ReadRecord decodes a record and encodes it again; proven is whether it proves itself.
func ReadRecord(b []byte) (again []byte, proven, err error) {
	r, err := decodeRecord(b)
	if err != nil {
		return nil, nil, err
	}
	return r.encode(), r.prove(), nil
}

// ReadAsk decodes an announcement and encodes it again.
func ReadAsk(b []byte) ([]byte, error) {
	a, err := decodeAsk(b)
	if err != nil {
		return nil, err
	}
	return a.encode(), nil
}

// Forge changes a record and signs it anew: as a node, and as a Space key if there is one.
func Forge(b []byte, node, host ed25519.PrivateKey, change func(f *Fields)) []byte {
	r, err := decodeRecord(b)
	if err != nil {
		panic(err)
	}
	f := Fields{&r.version, &r.public, &r.at, &r.node, &r.host, &r.token, &r.chain}
	change(&f)
	r.sign(node, host)
	return r.encode()
}

// Fields are some of a record.
type Fields struct {
	Version    *int64
	Public     *[]byte
	At         *int64
	Node, Host *hostlog.Key
	Token      *[]byte
	Chain      *[][]byte
}

// About returns what a record says.
func About(b []byte) (kind, version int64, network string) {
	r, err := decodeRecord(b)
	if err != nil {
		panic(err)
	}
	return int64(r.kind), r.version, r.network.String()
}

// Kinds of record.
const (
	RecordCreate = int64(recordCreate)
	RecordRotate = int64(recordRotate)
	RecordRevoke = int64(recordRevoke)
	RecordMember = int64(recordMember)
	RecordTaken  = int64(recordTaken)
)

// Samples returns records of every kind that has no token, and an announcement.
func Samples(owner tinycloud.Principal) (records [][]byte, announcement []byte) {
	_, node, _ := ed25519.GenerateKey(rand.Reader)
	_, host, _ := ed25519.GenerateKey(rand.Reader)
	id, err := tinycloud.NewNetworkID(string(owner), "default")
	if err != nil {
		panic(err)
	}
	pub := make([]byte, keySize)
	pub[0] = 9
	r := record{kind: recordTaken, network: id, version: 1, public: pub, at: time.Now().UnixNano(), node: hostlog.Key(node.Public().(ed25519.PublicKey)), threshold: threshold{1, -1}}
	r.sign(node, nil)
	records = append(records, r.encode())
	r.kind, r.threshold, r.host = recordMember, threshold{}, hostlog.Key(host.Public().(ed25519.PublicKey))
	r.sign(node, host)
	records = append(records, r.encode())
	space, _ := tinycloud.SecretsOf(owner)
	a := ask{space: space, network: id, version: 1, public: pub, to: hostlog.Party{Host: r.host, Node: r.node}, transport: pub}
	a.sign(host, node)
	return records, a.encode()
}

// Box exports box to tests.
func Box(random io.Reader, key, text []byte) ([]byte, error) { return box(random, key, text) }

// Open exports open to tests.
func Open(key, b []byte) ([]byte, error) { return open(key, b) }

// Wrap exports wrap to tests.
func Wrap(random io.Reader, to, text []byte) ([]byte, error) { return wrap(random, to, text) }

// Unwrap exports unwrap to tests.
func Unwrap(private, w []byte) ([]byte, error) { return unwrap(private, w) }

// Public exports public to tests.
func Public(private []byte) ([]byte, error) { return public(private) }

// Canonical returns the canonical form of a JSON text.
func Canonical(text []byte) ([]byte, error) {
	d, err := parse(text)
	if err != nil {
		return nil, err
	}
	return d.canonical(), nil
}

// Hash returns the hash of a JSON text.
func Hash(text []byte) (string, error) {
	d, err := parse(text)
	return d.hash(), err
}

// HashText exports hashText to tests.
func HashText(s string) string { return hashText(s) }

// ReadRequests reads a text as the body of each request and as each fact.
func ReadRequests(text []byte) (create, decrypt, admin, decryptFact bool) {
	d, err := parse(text)
	if err != nil {
		return false, false, false, false
	}
	_, noCreate := readCreate(d)
	_, noDecrypt := readDecrypt(d)
	f, g := fieldsOf(d), fieldsOf(d)
	adminFacts(f)
	decryptFacts(g)
	return noCreate == nil, noDecrypt == nil, f.err == nil, g.err == nil
}

// Decode64 exports decode64 to tests.
func Decode64(text string) ([]byte, error) { return decode64(text) }

// Bounds.
const (
	MaxNonces = maxNonces
	MaxAudit  = maxAudit
	AuditLife = auditLife
)

// Row exports row to tests.
var Row = row

// RotateText is what another owner would sign to have a network rotated.
func RotateText(n *Networks, owner tinycloud.Principal, id string) (string, error) {
	return capstore.OwnerMessage(owner, tinycloud.Principal(n.node), id, AbilityRotate, "abcdefgh12345678", n.rows.Now(), time.Minute)
}

// MemberRecord is a record that a node holds a key, whether it does or not.
func MemberRecord(n *Networks, maker []byte) []byte {
	r, err := decodeRecord(maker)
	if err != nil {
		panic(err)
	}
	return n.member(r.network, key{version: r.version, public: r.public}, r.at).encode()
}
