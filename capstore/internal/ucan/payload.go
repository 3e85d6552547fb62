package ucan

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recent"
)

// version is the one UCAN version spoken.
const version = "0.10.0"

// headers are those that were read lately, and their algorithms: of one key they are all the same.
var headers = recent.New[string]()

// readHeader reads the encoded header of a token, and returns the algorithm.
func readHeader(encoded string) (algorithm string, err error) {
	text, err := decodeBase64(nil, []byte(encoded))
	if err != nil {
		return "", err
	}
	h, err := object(string(text))
	if err != nil {
		return "", err
	}
	alg, ok := h.Get("alg")
	if !ok || alg.Kind != recap.String {
		return "", undecodable("header: alg")
	}
	if typ, ok := h.Get("typ"); !ok || typ.Kind != recap.String || typ.Text != "JWT" {
		return "", undecodable("header: typ")
	}
	if ucv, ok := h.Get("ucv"); !ok || ucv.Kind != recap.String || ucv.Text != version {
		return "", undecodable("header: ucv")
	}
	// The key comes from iss, so what jwk says does not matter.
	if jwk, ok := h.Get("jwk"); ok && jwk.Kind != recap.Object {
		return "", undecodable("header: jwk")
	}
	return alg.Text, critical(h)
}

// critical refuses extensions: "b64" may be demanded, but only as what it is without being named.
func critical(h recap.Value) error {
	if b64, ok := h.Get("b64"); ok && b64.Raw != "true" {
		return undecodable("header: b64")
	}
	crit, ok := h.Get("crit")
	if !ok {
		return nil
	}
	if crit.Kind != recap.Array || len(crit.Items) == 0 {
		return undecodable("header: crit")
	}
	for _, name := range crit.Items {
		if name.Kind != recap.String || name.Text != "b64" {
			return undecodable("header: crit")
		}
	}
	return nil
}

func (t *Token) readPayload(text string) error {
	p, err := object(text)
	if err != nil {
		return err
	}
	if err := t.readParties(p); err != nil {
		return err
	}
	if err := t.readWindow(p); err != nil {
		return err
	}
	if nnc, ok := present(p, "nnc"); ok {
		if nnc.Kind != recap.String {
			return undecodable("nnc")
		}
		t.Nonce = nnc.Text
	}
	if fct, ok := present(p, "fct"); ok {
		if fct.Kind != recap.Array || len(fct.Items) > MaxFacts {
			return undecodable("fct")
		}
		for _, fact := range fct.Items {
			t.Facts = append(t.Facts, json.RawMessage(fact.Raw))
		}
	}
	prf, ok1 := p.Get("prf")
	att, ok2 := p.Get("att")
	if !ok1 || !ok2 {
		return undecodable("prf or att is missing")
	}
	if t.Proofs, err = recap.ParseProofs(prf, ""); err != nil {
		return err
	}
	t.Capabilities, err = recap.Capabilities(att, true)
	return err
}

func (t *Token) readParties(p recap.Value) (err error) {
	iss, ok1 := p.Get("iss")
	aud, ok2 := p.Get("aud")
	if !ok1 || !ok2 || iss.Kind != recap.String || aud.Kind != recap.String {
		return undecodable("iss or aud is missing")
	}
	t.IssuerURL = iss.Text
	if t.Issuer, err = tinycloud.ParsePrincipal(iss.Text); err != nil {
		return undecodable("iss: %v", err)
	}
	if t.Audience, err = tinycloud.ParsePrincipal(aud.Text); err != nil || strings.ContainsAny(aud.Text, "/?#") {
		return undecodable("aud is not a DID")
	}
	return nil
}

func (t *Token) readWindow(p recap.Value) error {
	exp, ok := p.Get("exp")
	if !ok || exp.Kind != recap.Number {
		return undecodable("exp is missing")
	}
	at, ok := instant(exp.Raw)
	if !ok {
		return undecodable("exp out of range")
	}
	t.Expires = &at
	if nbf, ok := present(p, "nbf"); ok {
		at, ok := instant(nbf.Raw)
		if !ok || nbf.Kind != recap.Number {
			return undecodable("nbf")
		}
		t.NotBefore = &at
	}
	return nil
}

// lastSecond is 9999-12-31T23:59:59Z, the end of the calendar that RFC 3339 can print.
const lastSecond = 253402300799

// instant converts seconds as the reference does: as a double times 1e9, cut to whole nanoseconds.
func instant(number string) (time.Time, bool) {
	seconds, err := strconv.ParseFloat(number, 64)
	if err != nil || seconds < 0 || seconds >= lastSecond+1 {
		return time.Time{}, false
	}
	nanos := math.Trunc(seconds * 1e9)
	if nanos < 1<<62 {
		return time.Unix(0, int64(nanos)).UTC(), true
	}
	whole, _ := big.NewFloat(nanos).Int(nil)
	sec, nsec := new(big.Int).DivMod(whole, big.NewInt(1e9), new(big.Int))
	return time.Unix(sec.Int64(), nsec.Int64()).UTC(), sec.Int64() <= lastSecond
}

// present returns a member that is there and not null.
func present(v recap.Value, name string) (recap.Value, bool) {
	m, ok := v.Get(name)
	return m, ok && m.Kind != recap.Null
}

func object(text string) (recap.Value, error) {
	v, err := recap.ParseJSON(text)
	if err == nil && v.Kind != recap.Object {
		return v, undecodable("not a JSON object")
	}
	return v, err
}

func isRefusal(err error) bool {
	var refusal *tinycloud.Refusal
	return errors.As(err, &refusal)
}
