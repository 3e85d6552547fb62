package keys

import (
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Bounds.
const (
	maxIDs     = 4096       // of records that a host has
	maxFrame   = 192 << 10  // bytes: ids, a page of records, or a request with its body
	maxPage    = 96 << 10   // bytes of records in a page, unless one alone is longer
	maxRecords = 4 << 20    // bytes that one question brings, each way; what is left comes with the next
	maxText    = 512        // bytes of a refusal
	maxAnswer  = 64 << 10   // bytes of an answer
	maxPages   = 1 + 2*4096 // of one question
)

// message is one frame. Exactly one field is set. Newer releases may add fields, which older ones pass over.
type message struct {
	Have    *have    `cbor:"have,omitempty"`
	Records *page    `cbor:"records,omitempty"`
	Done    *done    `cbor:"done,omitempty"`
	Ask     *blob    `cbor:"ask,omitempty"`
	Given   *blob    `cbor:"given,omitempty"`
	Decrypt *decrypt `cbor:"decrypt,omitempty"`
	Answer  *blob    `cbor:"answer,omitempty"`
	Refused *refused `cbor:"refused,omitempty"`
}

// have are the ids of the records that the sender has. Both sides say so.
type have struct {
	_   struct{} `cbor:",toarray"`
	IDs []tinycloud.Hash
}

// page are records that the other side lacks.
type page struct {
	_       struct{} `cbor:",toarray"`
	Records [][]byte
	More    bool
}

// done says that what was sent is kept.
type done struct {
	_ struct{} `cbor:",toarray"`
}

// blob is what the store understands.
type blob struct {
	_    struct{} `cbor:",toarray"`
	Data []byte
}

// decrypt is a client's request.
type decrypt struct {
	_       struct{} `cbor:",toarray"`
	Header  string
	Network string
	Body    []byte
}

// refused says why there is no answer.
type refused struct {
	_     struct{} `cbor:",toarray"`
	Class uint64
	Text  string
}

func (m *message) fields() (n int) {
	for _, set := range []bool{
		m.Have != nil, m.Records != nil, m.Done != nil, m.Ask != nil, m.Given != nil, m.Decrypt != nil, m.Answer != nil, m.Refused != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

// decode reads a frame in its one spelling. The error is of class [tinycloud.ErrInvalid].
func decode(b []byte) (*message, error) {
	m := &message{}
	if err := wire.Decode(b, m); err != nil {
		return nil, err
	}
	switch {
	case m.fields() != 1:
		return nil, fmt.Errorf("keys: message with %d meanings: %w", m.fields(), tinycloud.ErrInvalid)
	case m.Have != nil && len(m.Have.IDs) > maxIDs, m.Refused != nil && len(m.Refused.Text) > maxText, m.Answer != nil && len(m.Answer.Data) > maxAnswer:
		return nil, fmt.Errorf("keys: message is too long: %w", tinycloud.ErrInvalid)
	}
	return m, nil
}

// classes are those of refusals, by their number on the wire, which never changes.
var classes = []error{
	0: tinycloud.ErrUnavailable, 1: tinycloud.ErrInvalid, 2: tinycloud.ErrUndecodable, 3: tinycloud.ErrForged, 4: tinycloud.ErrUnauthorized,
	5: tinycloud.ErrForbidden, 6: tinycloud.ErrNotFound, 7: tinycloud.ErrConflict, 8: tinycloud.ErrBusy, 9: tinycloud.ErrTooLarge,
}

// refusal is what an error is told as: a refusal with its text, all else as something that may be otherwise later. Errors
// of other kinds may say something of this host.
func refusal(err error) *refused {
	out := &refused{Text: "try again later"}
	var r *tinycloud.Refusal
	if errors.As(err, &r) {
		out.Text = r.Text[:min(len(r.Text), maxText)]
	}
	for i, class := range classes {
		if errors.Is(err, class) {
			out.Class = uint64(i)
			break
		}
	}
	if r == nil && out.Class != 0 {
		out.Text = classes[out.Class].Error()
	}
	return out
}

// err is the refusal as an error.
func (r *refused) err() error {
	class := tinycloud.ErrUnavailable
	if r.Class < uint64(len(classes)) {
		class = classes[r.Class]
	}
	return tinycloud.Refuse(class, "%s", r.Text)
}

// frames reads and writes messages.
type frames struct{ *wire.Framer }

func (f frames) put(m *message) error {
	b, err := wire.Encode(m)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return fmt.Errorf("keys: frame of %d bytes: %w", len(b), tinycloud.ErrTooLarge)
	}
	return f.Write(b)
}

func (f frames) get() (*message, error) {
	b, err := f.Read()
	if err != nil {
		return nil, err
	}
	return decode(b)
}

// expect gets a message that is what was asked for. A refusal is the error that it tells.
func (f frames) expect(is func(*message) bool) (*message, error) {
	m, err := f.get()
	switch {
	case err != nil:
		return nil, err
	case m.Refused != nil:
		return nil, m.Refused.err()
	case !is(m):
		return nil, errUnexpected()
	}
	return m, nil
}

func errUnexpected() error { return fmt.Errorf("keys: unexpected message: %w", tinycloud.ErrInvalid) }

// putRecords sends records in pages.
func (f frames) putRecords(records [][]byte) error {
	p, size, total := &page{}, 0, 0
	for _, r := range records {
		if total += len(r); total > maxRecords {
			break // the rest comes with the next question
		}
		if size > 0 && size+len(r) > maxPage {
			p.More = true
			if err := f.put(&message{Records: p}); err != nil {
				return err
			}
			p, size = &page{}, 0
		}
		p.Records, size = append(p.Records, r), size+len(r)
	}
	return f.put(&message{Records: p})
}

// getRecords reads them.
func (f frames) getRecords() (out [][]byte, err error) {
	size := 0
	for range maxPages {
		m, err := f.expect(func(m *message) bool { return m.Records != nil })
		if err != nil {
			return nil, err
		}
		for _, r := range m.Records.Records {
			if size += len(r); size > maxRecords || len(out) >= maxIDs || len(r) == 0 {
				return nil, fmt.Errorf("keys: records of %d bytes: %w", size, tinycloud.ErrInvalid)
			}
			out = append(out, r)
		}
		if !m.Records.More {
			return out, nil
		}
		if len(m.Records.Records) == 0 {
			break
		}
	}
	return nil, errUnexpected()
}
