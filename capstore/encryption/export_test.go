package encryption

import "io"

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
