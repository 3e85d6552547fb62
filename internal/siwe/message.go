package siwe

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Bounds of a message.
const (
	MaxText      = 66 << 10 // bytes of the whole text: what fits in a token of 64 KiB
	MaxResources = 256
)

// Message is the content of an EIP-4361 text. A nil pointer and, for the fields whose grammar has no
// empty value (Scheme, Expires, NotBefore), the empty string mean that the line is absent.
type Message struct {
	Scheme    string // "" when absent
	Domain    string // an RFC 3986 authority
	Address   [20]byte
	Statement *string // one line; the empty statement differs from none
	URI       string  // whom the message is for: the delegatee
	ChainID   uint64
	Nonce     string
	IssuedAt  string // RFC 3339, as signed
	Expires   string // RFC 3339 or ""
	NotBefore string // RFC 3339 or ""
	RequestID *string
	Resources []string // URIs
}

const (
	greeting     = " wants you to sign in with your Ethereum account:"
	uriTag       = "URI: "
	versionLine  = "Version: 1"
	chainTag     = "Chain ID: "
	nonceTag     = "Nonce: "
	issuedTag    = "Issued At: "
	expiresTag   = "Expiration Time: "
	notBeforeTag = "Not Before: "
	requestTag   = "Request ID: "
	resourcesTag = "Resources:"
)

// Text returns the text to sign: lines joined by '\n', none after the last.
func (m *Message) Text() []byte {
	b := make([]byte, 0, 1024)
	if m.Scheme != "" {
		b = append(append(b, m.Scheme...), "://"...)
	}
	b = append(append(b, m.Domain...), greeting...)
	b = append(append(b, '\n'), tinycloud.ChecksumAddress(m.Address)...)
	b = append(b, "\n\n"...)
	if m.Statement != nil {
		b = append(append(b, *m.Statement...), '\n')
	}
	line := func(tag, value string) {
		b = append(append(append(b, '\n'), tag...), value...)
	}
	line(uriTag, m.URI)
	line(versionLine, "")
	line(chainTag, strconv.FormatUint(m.ChainID, 10))
	line(nonceTag, m.Nonce)
	line(issuedTag, m.IssuedAt)
	if m.Expires != "" {
		line(expiresTag, m.Expires)
	}
	if m.NotBefore != "" {
		line(notBeforeTag, m.NotBefore)
	}
	if m.RequestID != nil {
		line(requestTag, *m.RequestID)
	}
	if len(m.Resources) > 0 {
		line(resourcesTag, "")
	}
	for _, r := range m.Resources {
		line("- ", r)
	}
	return b
}

// Principal returns the did:pkh of the signing account.
func (m *Message) Principal() tinycloud.Principal {
	return tinycloud.Principal("did:pkh:eip155:" + strconv.FormatUint(m.ChainID, 10) + ":" +
		tinycloud.ChecksumAddress(m.Address))
}

// Check reports whether every field is well formed. The error is of class [tinycloud.ErrInvalid].
func (m *Message) Check() error {
	switch {
	case m.Scheme != "" && !tinycloud.IsScheme(m.Scheme):
		return m.bad("scheme")
	case m.Domain == "" || !tinycloud.IsAuthority(m.Domain):
		return m.bad("domain")
	case m.ChainID == 0:
		return m.bad("chain id")
	case m.Statement != nil && !oneLine(*m.Statement):
		return m.bad("statement")
	case !tinycloud.IsURI(m.URI):
		return m.bad("uri")
	case !oneLine(m.Nonce):
		return m.bad("nonce")
	case m.RequestID != nil && !oneLine(*m.RequestID):
		return m.bad("request id")
	case len(m.Resources) > MaxResources:
		return m.bad("number of resources")
	}
	for _, r := range m.Resources {
		if !tinycloud.IsURI(r) {
			return m.bad("resource")
		}
	}
	for _, stamp := range []string{m.IssuedAt, m.Expires, m.NotBefore} {
		if _, err := ParseTime(stamp); err != nil && (stamp != "" || m.IssuedAt == "") {
			return fmt.Errorf("siwe: %w", err)
		}
	}
	return nil
}

func (m *Message) bad(field string) error {
	return fmt.Errorf("siwe: %s: %w", field, tinycloud.ErrInvalid)
}

// Window returns the instants between which the message holds; nil where it has no bound.
func (m *Message) Window() (notBefore, expires *time.Time, err error) {
	for _, s := range []struct {
		text string
		out  **time.Time
	}{{m.NotBefore, &notBefore}, {m.Expires, &expires}} {
		if s.text == "" {
			continue
		}
		t, err := ParseTime(s.text)
		if err != nil {
			return nil, nil, fmt.Errorf("siwe: %w", err)
		}
		*s.out = &t
	}
	return notBefore, expires, nil
}

// oneLine reports whether s can stand in a line: UTF-8 without anything that breaks or hides text.
func oneLine(s string) bool {
	for _, c := range s {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return false
		}
	}
	return utf8.ValidString(s)
}

// Parse reads a text that [Message.Text] could have written. The error is of class
// [tinycloud.ErrInvalid].
func Parse(text []byte) (*Message, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("siwe: text of %d bytes: %w", len(text), tinycloud.ErrInvalid)
	}
	m := &Message{}
	l := &lines{rest: string(text), more: true}
	m.origin(l)
	m.statement(l)
	m.fields(l)
	if l.more {
		l.fail("more text")
	}
	if l.bad != "" {
		return nil, fmt.Errorf("siwe: line %d: %s: %w", l.n, l.bad, tinycloud.ErrInvalid)
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	if string(m.Text()) != string(text) {
		return nil, fmt.Errorf("siwe: not the canonical text: %w", tinycloud.ErrInvalid)
	}
	return m, nil
}

func (m *Message) origin(l *lines) {
	head, ok := strings.CutSuffix(l.next(), greeting)
	if !ok {
		l.fail("greeting")
	}
	m.Domain = head
	if scheme, domain, ok := strings.Cut(head, "://"); ok {
		m.Scheme, m.Domain = scheme, domain
		if scheme == "" {
			l.fail("scheme")
		}
	}
	address, ok := strings.CutPrefix(l.next(), "0x")
	if !ok || len(address) != 40 {
		l.fail("address")
		return
	}
	if _, err := hex.Decode(m.Address[:], []byte(address)); err != nil {
		l.fail("address")
	}
}

// statement reads up to the URI line. Two empty lines mean no statement, three an empty one.
func (m *Message) statement(l *lines) {
	if l.next() != "" {
		l.fail("empty line expected")
	}
	s := l.next()
	if s == "" && strings.HasPrefix(l.peek(), uriTag) {
		return
	}
	m.Statement = &s
	if l.next() != "" {
		l.fail("empty line expected")
	}
}

func (m *Message) fields(l *lines) {
	m.URI = l.tagged(uriTag)
	l.tagged(versionLine)
	chain, err := strconv.ParseUint(l.tagged(chainTag), 10, 64)
	if err != nil {
		l.fail("chain id")
	}
	m.ChainID = chain
	m.Nonce = l.tagged(nonceTag)
	m.IssuedAt = l.tagged(issuedTag)
	if l.has(expiresTag) {
		m.Expires = l.tagged(expiresTag)
	}
	if l.has(notBeforeTag) {
		m.NotBefore = l.tagged(notBeforeTag)
	}
	if l.has(requestTag) {
		id := l.tagged(requestTag)
		m.RequestID = &id
	}
	if l.has(resourcesTag) {
		l.tagged(resourcesTag)
		for l.more && l.bad == "" {
			m.Resources = append(m.Resources, l.tagged("- "))
		}
	}
}

// lines is the text not read yet. The first failure stays and ends the reading.
type lines struct {
	rest string
	more bool
	n    int
	bad  string
}

func (l *lines) fail(what string) {
	if l.bad == "" {
		l.bad = what
	}
}

func (l *lines) peek() string {
	line, _, _ := strings.Cut(l.rest, "\n")
	return line
}

func (l *lines) has(tag string) bool { return l.more && strings.HasPrefix(l.peek(), tag) }

func (l *lines) next() (line string) {
	if !l.more {
		l.fail("text ends early")
		return ""
	}
	l.n++
	line, l.rest, l.more = strings.Cut(l.rest, "\n")
	return line
}

func (l *lines) tagged(tag string) string {
	value, ok := strings.CutPrefix(l.next(), tag)
	if !ok {
		l.fail("expected " + strconv.Quote(tag))
	}
	return value
}
