package recap

import (
	"cmp"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/multiformats/go-multibase"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Prefix begins the URI that carries capabilities.
const Prefix = "urn:recap:"

const preamble = "I further authorize the stated URI to perform the following actions on my behalf:"

// MaxURI bounds the URI in bytes.
const MaxURI = 64 << 10

// Decode reads the capabilities and proofs of a urn:recap: URI. The JSON inside need not be canonical,
// its base64url must be. The error is of class [tinycloud.ErrUndecodable].
func Decode(uri string) ([]Capability, Proofs, error) {
	payload, ok := strings.CutPrefix(uri, Prefix)
	if !ok || len(uri) > MaxURI || strings.ContainsAny(payload, "\r\n") {
		return nil, Proofs{}, undecodable("recap: not a recap URI")
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(payload)
	if err != nil {
		return nil, Proofs{}, undecodable("recap: base64url")
	}
	body, err := ParseJSON(string(text))
	if err != nil {
		return nil, Proofs{}, err
	}
	att, ok1 := body.Get("att")
	prf, ok2 := body.Get("prf")
	if !ok1 || !ok2 {
		return nil, Proofs{}, undecodable("recap: att or prf is missing")
	}
	caps, err := Capabilities(att, false)
	if err != nil {
		return nil, Proofs{}, err
	}
	proofs, err := ParseProofs(prf, "z")
	return caps, proofs, err
}

// Encode returns the urn:recap: URI of capabilities in any order and of proofs. Caveats are not
// written: a signed message cannot carry them.
func Encode(caps []Capability, proofs []tinycloud.Hash) string {
	caps = slices.Clone(caps)
	sortCapabilities(caps)
	b := append([]byte(nil), `{"att":{`...)
	for i, c := range caps {
		switch {
		case i == 0:
			b = append(AppendString(b, c.URI), ":{"...)
		case c.URI != caps[i-1].URI:
			b = append(AppendString(append(b, "},"...), c.URI), ":{"...)
		default:
			b = append(b, ',')
		}
		b = append(AppendString(b, c.Ability), ":[{}]"...)
	}
	if len(caps) > 0 {
		b = append(b, '}')
	}
	b = append(b, `},"prf":[`...)
	for i, p := range proofs {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, proofText(p))
	}
	b = append(b, "]}"...)
	return Prefix + base64.RawURLEncoding.EncodeToString(b)
}

// proofText returns the CID of an event in base58btc, the spelling this format asks for.
func proofText(h tinycloud.Hash) string {
	encoder := multibase.MustNewEncoder(multibase.Base58BTC)
	return h.CID(tinycloud.RawCodec).Encode(encoder)
}

// Statement returns the sentence that a message carrying the capabilities has to end its statement
// with. It names resources as written.
func Statement(caps []Capability) string {
	type line struct{ uri, namespace, name string }
	lines := make([]line, len(caps))
	for i, c := range caps {
		namespace, name, _ := strings.Cut(c.Ability, "/")
		lines[i] = line{c.URI, namespace, name}
	}
	// Not the order of capabilities: "a-b/x" is before "a/x", but namespace "a" before "a-b".
	slices.SortFunc(lines, func(x, y line) int {
		return cmp.Or(cmp.Compare(x.uri, y.uri), cmp.Compare(x.namespace, y.namespace), cmp.Compare(x.name, y.name))
	})
	var b strings.Builder
	b.WriteString(preamble)
	number := 0
	for i, l := range lines {
		if i > 0 && l.uri == lines[i-1].uri && l.namespace == lines[i-1].namespace {
			b.WriteString(", '" + l.name + "'")
			continue
		}
		if i > 0 {
			b.WriteString(" for '" + lines[i-1].uri + "'.")
		}
		number++
		b.WriteString(" (" + strconv.Itoa(number) + ") '" + l.namespace + "': '" + l.name + "'")
	}
	if len(lines) > 0 {
		b.WriteString(" for '" + lines[len(lines)-1].uri + "'.")
	}
	return b.String()
}

// CheckStatement reports whether a statement tells of exactly these capabilities. The error is of
// class [tinycloud.ErrUndecodable].
func CheckStatement(statement *string, caps []Capability) error {
	if statement == nil || !strings.HasSuffix(*statement, Statement(caps)) {
		return undecodable("recap: the statement does not tell of the capabilities")
	}
	return nil
}
