// Package networktest is a client of encryption networks for tests: it seals, asks and verifies as the SDK does, with code
// of its own.
package networktest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/mr-tron/base58"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// Client signs requests to one node.
type Client struct {
	Key    *captest.SessionKey
	Proofs []tinycloud.Hash
	Node   string // DID
}

// Request is a request that may still be changed: what its token says of the body is made by [Request.Bind].
type Request struct {
	Body  map[string]any // nil: none is sent
	Facts map[string]any
	Token captest.TokenOptions
	key   *captest.SessionKey
}

// ID names a network.
func ID(owner tinycloud.Principal, name string) string {
	return "urn:tinycloud:encryption:" + string(owner) + ":" + name
}

// Create asks for a network.
func (c Client) Create(owner tinycloud.Principal, name string) *Request {
	return c.administer(ID(owner, name), "tinycloud.encryption/network.create", map[string]any{
		"name": name, "ownerDid": string(owner), "threshold": map[string]any{"n": 1, "t": 1},
	})
}

// Revoke ends a network.
func (c Client) Revoke(id string) *Request {
	return c.administer(id, "tinycloud.encryption/network.revoke", nil)
}

// Rotate asks for a new version of a network's key.
func (c Client) Rotate(id string) *Request {
	return c.administer(id, "tinycloud.encryption/network.rotate", nil)
}

func (c Client) administer(id, ability string, body map[string]any) *Request {
	r := c.request(id, ability, body)
	r.Facts = map[string]any{"type": "tinycloud.encryption.network-admin/v1", "targetNode": c.Node, "networkId": id, "action": ability}
	return r.Bind()
}

func (c Client) request(id, ability string, body map[string]any) *Request {
	return &Request{Body: body, key: c.Key, Token: captest.TokenOptions{
		Caps: captest.Caps{id: {ability}}, Audience: c.Node, Proofs: c.Proofs,
	}}
}

// Receiver is the key pair of one request.
type Receiver struct{ key *ecdh.PrivateKey }

// Decrypt asks for the key of an envelope.
func (c Client) Decrypt(id string, version int64, sealed string) (*Request, Receiver) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	r := c.request(id, "tinycloud.encryption/decrypt", map[string]any{
		"type": "tinycloud.encryption.decrypt/v1", "targetNode": c.Node, "networkId": id, "alg": "x25519-aes256gcm/v1", "keyVersion": version,
		"encryptedSymmetricKey": sealed, "receiverPublicKey": base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()),
	})
	r.Facts = map[string]any{}
	return r.Bind(), Receiver{key}
}

// Bind has the token say what the body is: hashes, and of a request to decrypt the members that both have.
func (r *Request) Bind() *Request {
	if sealed, ok := r.Body["encryptedSymmetricKey"]; ok {
		r.Body["encryptedSymmetricKeyHash"] = Hash(sealed)
		r.Body["receiverPublicKeyHash"] = Hash(r.Body["receiverPublicKey"])
		for _, name := range []string{"type", "targetNode", "networkId", "alg", "keyVersion", "encryptedSymmetricKeyHash", "receiverPublicKeyHash"} {
			r.Facts[name] = r.Body[name]
		}
	}
	body := r.Body
	if body == nil {
		body = map[string]any{}
	}
	r.Facts["bodyHash"] = Hash(body)
	return r
}

// Header signs the request.
func (r *Request) Header() string {
	o := r.Token
	if r.Facts != nil && o.Facts == nil {
		o.Facts = []json.RawMessage{Canonical(r.Facts)}
	}
	return r.key.Invoke(o)
}

// Text is the body.
func (r *Request) Text() string {
	if r.Body == nil {
		return ""
	}
	return string(Canonical(r.Body))
}

// Canonical is JSON with sorted members, without white space and with few escapes.
func Canonical(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// Hash is the hash of a JSON value.
func Hash(v any) string {
	sum := sha256.Sum256(Canonical(v))
	return hex.EncodeToString(sum[:])
}

// Seal seals a data key to a network.
func Seal(public, data []byte) string {
	to, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		panic(err)
	}
	from, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	shared, err := from.ECDH(to)
	if err != nil {
		panic(err)
	}
	out := append(from.PublicKey().Bytes(), 1)
	return base64.StdEncoding.EncodeToString(append(out, seal(shared, data)...))
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	c, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return c
}

func seal(key, text []byte) []byte {
	nonce := make([]byte, 12)
	rand.Read(nonce) // never fails
	return gcm(key).Seal(nonce, nonce, text, nil)
}

func unseal(key, b []byte) ([]byte, error) {
	if len(b) < 12 {
		return nil, errors.New("short")
	}
	return gcm(key).Open(nil, b[:12], b[12:], nil)
}

// Envelope is an encrypted value as the SDK stores it.
type Envelope struct {
	V                         int    `json:"v"`
	NetworkID                 string `json:"networkId"`
	Alg                       string `json:"alg"`
	KeyVersion                int64  `json:"keyVersion"`
	EncryptedSymmetricKey     string `json:"encryptedSymmetricKey"`
	EncryptedSymmetricKeyHash string `json:"encryptedSymmetricKeyHash"`
	Ciphertext                []byte `json:"ciphertext"`
}

// Encrypt makes an envelope for a network that a descriptor describes, with a data key that it also returns.
func Encrypt(descriptor string, text []byte) (Envelope, []byte, error) {
	var d struct {
		Descriptor struct {
			NetworkID           string
			State, Alg          string
			PublicEncryptionKey []byte
			KeyVersion          int64
			Members             []struct{ NodeID string }
		}
	}
	if err := json.Unmarshal([]byte(descriptor), &d); err != nil {
		return Envelope{}, nil, err
	}
	x := d.Descriptor
	if x.State != "active" && x.State != "rotating" || len(x.Members) == 0 || len(x.PublicEncryptionKey) != 32 {
		return Envelope{}, nil, fmt.Errorf("descriptor %s", descriptor)
	}
	data := make([]byte, 32)
	rand.Read(data) // never fails
	sealed := Seal(x.PublicEncryptionKey, data)
	return Envelope{1, x.NetworkID, x.Alg, x.KeyVersion, sealed, Hash(sealed), seal(data, text)}, data, nil
}

// Text decrypts an envelope.
func (e Envelope) Text(data []byte) (string, error) {
	b, err := unseal(data, e.Ciphertext)
	return string(b), err
}

// Open verifies the answer to a request, in the order in which the SDK does, and returns the data key.
func (r Receiver) Open(q *Request, header, answer string) ([]byte, error) {
	var a map[string]any
	if err := json.Unmarshal([]byte(answer), &a); err != nil {
		return nil, err
	}
	cid := tinycloud.Sum([]byte(header)).EventID()
	sum := sha256.Sum256([]byte(cid + Hash(q.Body)))
	for name, want := range map[string]any{
		"type": "tinycloud.encryption.decrypt-result/v1", "targetNode": q.Body["targetNode"], "nodeId": q.Body["targetNode"],
		"networkId": q.Body["networkId"], "alg": q.Body["alg"], "keyVersion": q.Body["keyVersion"],
		"encryptedSymmetricKeyHash": q.Body["encryptedSymmetricKeyHash"], "receiverPublicKeyHash": q.Body["receiverPublicKeyHash"],
		"invocationCid": cid, "requestHash": hex.EncodeToString(sum[:]),
	} {
		if fmt.Sprint(a[name]) != fmt.Sprint(want) {
			return nil, fmt.Errorf("%s is %v, not %v", name, a[name], want)
		}
	}
	signature, _ := a["nodeSignature"].(string)
	delete(a, "nodeSignature")
	if len(a) != 11 {
		return nil, fmt.Errorf("%d members", len(a))
	}
	if err := verify(fmt.Sprint(a["nodeId"]), Canonical(a), signature); err != nil {
		return nil, err
	}
	return r.unwrap(fmt.Sprint(a["wrappedKey"]))
}

func verify(node string, signed []byte, signature string) error {
	key, err := base58.Decode(strings.TrimPrefix(node, "did:key:z"))
	if err != nil || len(key) != 34 {
		return fmt.Errorf("node %s: %w", node, err)
	}
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || !ed25519.Verify(key[2:], signed, sig) {
		return errors.New("signature")
	}
	return nil
}

func (r Receiver) unwrap(text string) ([]byte, error) {
	w, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(w) < 61 || w[32] != 1 {
		return nil, fmt.Errorf("wrapped key of %d bytes: %w", len(w), err)
	}
	from, err := ecdh.X25519().NewPublicKey(w[:32])
	if err != nil {
		return nil, err
	}
	shared, err := r.key.ECDH(from)
	if err != nil {
		return nil, err
	}
	return unseal(shared, w[33:])
}
