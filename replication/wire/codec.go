package wire

import (
	"bytes"
	"errors"
	"fmt"
	"maps"

	"github.com/fxamacker/cbor/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// codec is the one way messages are written and read.
type codec struct {
	enc cbor.UserBufferEncMode
	dec cbor.DecMode
}

func newCodec() codec {
	enc, err := cbor.EncOptions{
		Sort: cbor.SortLengthFirst, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
	}.UserBufferEncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive, MaxNestedLevels: 10, MaxArrayElements: MaxTips, MaxMapPairs: maxFields,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return codec{enc, dec}
}

// canonical never changes.
var canonical = newCodec()

// Encode writes a message in its one spelling.
func Encode(v any) ([]byte, error) { return canonical.encode(v) }

// Decode reads one item and refuses any spelling of it but that of [Encode]. Fields of a message that are not known here,
// from a newer host, are passed over.
func Decode(b []byte, v any) error {
	_, err := canonical.decodeKnown(b, v)
	return err
}

func (c codec) encode(v any) ([]byte, error) {
	b, err := c.enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("message: %w: %w", err, tinycloud.ErrInvalid)
	}
	return b, nil
}

// encodeWithin is encode of what takes about so many bytes.
func (c codec) encodeWithin(v any, size int) ([]byte, error) {
	buf := bytes.NewBuffer(make([]byte, 0, size))
	if err := c.enc.MarshalToBuffer(v, buf); err != nil {
		return nil, fmt.Errorf("message: %w: %w", err, tinycloud.ErrInvalid)
	}
	return buf.Bytes(), nil
}

// decodeKnown is [Decode], and reports whether there were fields that are not known here.
func (c codec) decodeKnown(b []byte, v any) (more bool, err error) {
	if err := c.dec.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("message: %v: %w", err, tinycloud.ErrInvalid)
	}
	again, err := c.encodeWithin(v, len(b))
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
