package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/multiformats/go-multibase"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// exchange is one recorded request and what the reference answered. Signed is the text of its CACAO or the payload
// of its JWT. Pages are answers whose body was the reference's HTML error page.
type exchange struct {
	Name, Method, Path string
	Headers            map[string]string
	Body, BodyBase64   string
	Literal            string // Authorization as it was
	SameAs             string // exchange whose token is sent again
	Signed             string
	Alg                string // "" is EdDSA
	Broken             bool   // the signature was damaged
	Reply              struct {
		Status  int
		Headers map[string]string
		Body    string
		Base64  bool
		Page    bool
	}
}

func readRecording(t *testing.T) []exchange {
	t.Helper()
	b, err := os.ReadFile("testdata/reference-1.16.0.json")
	must(t, err)
	var all []exchange
	must(t, json.Unmarshal(b, &all))
	if len(all) != 152 {
		t.Fatalf("recording of %d exchanges", len(all))
	}
	return all
}

// translation says the recorded scenario anew: with keys of today, now.
type translation struct {
	t        *testing.T
	delta    time.Duration // from the recording to now
	wallets  map[string]*captest.Wallet
	sessions map[string]*captest.SessionKey
	pairs    [][2]string // recorded, live
	tokens   map[string]string
}

const (
	recordedAt  = "2026-11-23T01:50:29.264Z"
	alice, bob  = "0x4d1aC3e37c0157e3532424463Da9EB38E22a5a70", "0x9d204e480f08C62dD93af73574d1c04DA3289452"
	aliceKey    = "did:key:z6MkfpBCZnTnbhhApbMRaGiXZrk1DXaMFgSVtx6phb4x1wZU"
	bobKey      = "did:key:z6Mkk9G8NCwskfpdTLXufBmXCQeddsgNd6Y4ykVRPxjFw4vZ"
	carolKey    = "did:key:z6MksR6WhDKiTtB2u8GYr3sUcW4YZenPZaeRzFBp8v3aRsPj"
	didKeyStart = "did:key:"
)

func newTranslation(t *testing.T) *translation {
	t.Helper()
	then, err := time.Parse(time.RFC3339, recordedAt)
	must(t, err)
	tr := &translation{
		t: t, delta: time.Since(then).Truncate(time.Second), tokens: map[string]string{},
		wallets:  map[string]*captest.Wallet{alice: captest.RandomWallet(), bob: captest.RandomWallet()},
		sessions: map[string]*captest.SessionKey{},
	}
	for address, w := range tr.wallets {
		tr.pair(address, w.Address())
	}
	for _, key := range []string{aliceKey, bobKey, carolKey} {
		tr.sessions[key] = captest.RandomSession()
		// Without the method's name, so that fragments are translated too.
		tr.pair(strings.TrimPrefix(key, didKeyStart), strings.TrimPrefix(string(tr.sessions[key].DID()), didKeyStart))
	}
	return tr
}

func (tr *translation) pair(recorded, live string) {
	tr.pairs = append(tr.pairs, [2]string{recorded, live})
}

// issued is the answer to a request for a signed URL.
type issued struct {
	URL, TicketID, ExpiresAt string
}

var ticketForm = regexp.MustCompile(`^[\w-]{43}$`)

// learnTicket pairs two tickets and their ends. Both URLs have to be made of their tickets, in the same way.
func (tr *translation) learnTicket(e exchange, got answer) {
	var recorded, live issued
	if json.Unmarshal([]byte(e.Reply.Body), &recorded) != nil || recorded.TicketID == "" {
		return
	}
	must(tr.t, json.Unmarshal([]byte(got.body), &live))
	end, err := time.Parse(time.RFC3339, live.ExpiresAt)
	if left := time.Until(end); err != nil || left <= 0 || left > time.Minute || !strings.HasSuffix(live.ExpiresAt, "Z") {
		tr.t.Errorf("%s: expires at %s", e.Name, live.ExpiresAt)
	}
	if !ticketForm.MatchString(live.TicketID) {
		tr.t.Errorf("%s: ticket %q", e.Name, live.TicketID)
		return
	}
	tr.pair(recorded.TicketID, live.TicketID)
	tr.pair(recorded.ExpiresAt, live.ExpiresAt)
}

// live translates recorded text, back live text.
func (tr *translation) live(text string) string {
	for _, p := range tr.pairs {
		text = strings.ReplaceAll(text, p[0], p[1])
	}
	return text
}

func (tr *translation) back(text string) string {
	for _, p := range tr.pairs {
		text = strings.ReplaceAll(text, p[1], p[0])
	}
	return text
}

// token makes an exchange's Authorization value.
func (tr *translation) token(e exchange) string {
	var token string
	switch {
	case e.SameAs != "":
		token = tr.tokens[e.SameAs]
	case e.Literal != "":
		token = e.Literal
	case strings.HasPrefix(e.Signed, "{"):
		token = tr.ucan(e)
	case e.Signed != "":
		token = tr.cacao(e)
	}
	tr.tokens[e.Name] = token
	return token
}

func (tr *translation) ucan(e exchange) string {
	var p struct {
		Att           map[string]map[string]json.RawMessage
		Aud, Iss, Nnc string
		Exp, Nbf      int64
		Fct           []json.RawMessage
		Prf           []string
	}
	must(tr.t, json.Unmarshal([]byte(e.Signed), &p))
	o := captest.TokenOptions{
		Caps: captest.Caps{}, Expires: time.Unix(p.Exp, 0).Add(tr.delta), Nonce: p.Nnc, Algorithm: e.Alg, Audience: tr.live(p.Aud),
	}
	for uri, abilities := range p.Att {
		for ability, caveats := range abilities {
			if string(caveats) != "[{}]" {
				tr.t.Fatalf("%s: caveats %s", e.Name, caveats)
			}
			o.Caps[tr.live(uri)] = append(o.Caps[tr.live(uri)], ability)
		}
	}
	for _, text := range p.Prf {
		o.Proofs = append(o.Proofs, tr.hash(text))
	}
	for _, f := range p.Fct {
		o.Facts = append(o.Facts, json.RawMessage(tr.live(string(f))))
	}
	if p.Nbf != 0 {
		o.NotBefore = time.Unix(p.Nbf, 0).Add(tr.delta)
	}
	did, _, _ := strings.Cut(p.Iss, "#")
	token := tr.sessions[did].Invoke(o)
	if !e.Broken {
		return token
	}
	cut := strings.LastIndexByte(token, '.') + 1
	sig, err := base64.RawURLEncoding.DecodeString(token[cut:])
	must(tr.t, err)
	sig[20] ^= 1
	return token[:cut] + base64.RawURLEncoding.EncodeToString(sig)
}

// hash translates a CID.
func (tr *translation) hash(cid string) tinycloud.Hash {
	h, err := tinycloud.ParseCID(cid)
	must(tr.t, err)
	h, err = tinycloud.ParseCID(tr.live(h.EventID()))
	must(tr.t, err)
	return h
}

var (
	stamps = regexp.MustCompile(`(?m)^(Issued At|Expiration Time|Not Before): (.*)$`)
	recaps = regexp.MustCompile(`urn:recap:([\w-]+)`)
)

// cacao signs the recorded text, translated, as it is, and wraps it up.
func (tr *translation) cacao(e exchange) string {
	text := stamps.ReplaceAllStringFunc(e.Signed, func(line string) string {
		name, stamp, _ := strings.Cut(line, ": ")
		at, err := time.Parse(time.RFC3339, stamp)
		must(tr.t, err)
		return name + ": " + at.Add(tr.delta).UTC().Format("2006-01-02T15:04:05.000Z")
	})
	text = recaps.ReplaceAllStringFunc(tr.live(text), tr.recap)
	address := strings.Split(e.Signed, "\n")[1]
	sig := tr.wallets[address].SignText([]byte(text))
	if e.Broken {
		sig[7] ^= 1
	}
	encoder, err := cbor.CanonicalEncOptions().EncMode()
	must(tr.t, err)
	b, err := encoder.Marshal(map[string]any{
		"h": map[string]any{"t": "eip4361"},
		"p": payload(text),
		"s": map[string]any{"t": "eip191", "s": sig},
	})
	must(tr.t, err)
	return base64.URLEncoding.EncodeToString(b)
}

func (tr *translation) recap(uri string) string {
	const prefix = "urn:recap:"
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(uri, prefix))
	must(tr.t, err)
	var r struct {
		Att json.RawMessage `json:"att"`
		Prf []string        `json:"prf"`
	}
	must(tr.t, json.Unmarshal(b, &r))
	r.Att = json.RawMessage(tr.live(string(r.Att)))
	for i, p := range r.Prf {
		r.Prf[i], err = tr.hash(p).CID(tinycloud.RawCodec).StringOfBase(multibase.Base58BTC)
		must(tr.t, err)
	}
	b, err = json.Marshal(r)
	must(tr.t, err)
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

// payload reads the fields of a SIWE text.
func payload(text string) map[string]any {
	lines := strings.Split(text, "\n")
	domain, _, _ := strings.Cut(lines[0], " ")
	p := map[string]any{"domain": domain, "iss": "did:pkh:eip155:1:" + lines[1], "version": 1}
	rest := lines[3:]
	if rest[0] != "" {
		p["statement"] = rest[0]
		rest = rest[1:]
	}
	names := map[string]string{
		"URI": "aud", "Nonce": "nonce", "Issued At": "iat", "Expiration Time": "exp", "Not Before": "nbf",
	}
	var resources []string
	for _, line := range rest {
		if r, ok := strings.CutPrefix(line, "- "); ok {
			resources = append(resources, r)
		}
		name, value, _ := strings.Cut(line, ": ")
		if field, ok := names[name]; ok {
			p[field] = value
		}
	}
	if resources != nil {
		p["resources"] = resources
	}
	return p
}
