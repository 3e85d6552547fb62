package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
)

const maxCursor = 4096 // characters

// cursor returns where the next page of a list begins: base64url of an HMAC-SHA256 and the last key. It is good
// for the same subject, Space, prefix and limit alone.
func (a *API) cursor(c *call, o op, last string) string {
	return base64.RawURLEncoding.EncodeToString(append(a.cursorMAC(c, o, last), last...))
}

// checkCursor reads the request's cursor, if it has one.
func (a *API) checkCursor(c *call, o op) error {
	text := c.options.cursor
	if text == "" {
		return nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(text) > maxCursor || len(b) < sha256.Size || c.options.limit == 0 {
		return badOption("Invalid KV list cursor")
	}
	last := string(b[sha256.Size:])
	if !hmac.Equal(a.cursorMAC(c, o, last), b[:sha256.Size]) {
		return badOption("Invalid KV list cursor")
	}
	c.options.after = last
	return nil
}

func (a *API) cursorMAC(c *call, o op, last string) []byte {
	mac := hmac.New(sha256.New, a.o.CursorKey[:])
	var b []byte
	for _, part := range []string{"kv/list", string(c.token.Signer), o.space.String(), o.key, last} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	mac.Write(binary.BigEndian.AppendUint32(b, uint32(c.options.limit)))
	return mac.Sum(nil)
}
