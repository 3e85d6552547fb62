package encryption_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// readVectors returns the lines of the file by their first words.
func readVectors(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		out[name] = rest
	}
	return out
}

// from gives bytes from first on, so many.
func from(first byte, n int) (out []byte) {
	for i := range n {
		out = append(out, first+byte(i))
	}
	return out
}

// TestVectors plays the worked example, byte for byte.
func TestVectors(t *testing.T) {
	v := readVectors(t)
	equal := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	random := bytes.NewReader(slices.Concat(
		from(1, 32), bytes.Repeat([]byte{10}, 12), // the network's key, the nonce that seals it
		from(1, 44),                                  // of the second create, which comes to nothing
		from(0x61, 32), bytes.Repeat([]byte{13}, 12), // the ephemeral key of the answer, its nonce
	))
	h := open(t, filepath.Join(t.TempDir(), "caps.db"), time.Unix(1_899_999_900, 0), random)
	seed, err := hex.DecodeString("36f4ecbb991397d317dc68a7df252ea0c178f185536938e6d2ac047c4d42c22c")
	if err != nil {
		t.Fatal(err)
	}
	owner := captest.SessionOf([32]byte(seed))
	h.owner(owner)
	equal("node", h.node, v["nodeDid"])
	seal := h.keys.Derive(hostkeys.ContextNetworkSeal)
	equal("seal", hex.EncodeToString(seal[:]), v["seal"])
	id, err := tinycloud.ParseNetworkID(v["net"])
	if err != nil {
		t.Fatal(err)
	}
	equal("network", id.String(), "urn:tinycloud:encryption:"+string(owner.DID())+":default")

	h.testCreateVectors(v, id)
	h.testSealVectors(v)
	h.testDecryptVectors(v, id)
}

func (h *host) testCreateVectors(v map[string]string, id tinycloud.NetworkID) {
	t := h.t
	body := []byte(v["createBody"])
	if got, err := encryption.Hash(body); err != nil || got != v["createHash"] {
		t.Errorf("hash of the body: %s, %v", got, err)
	}
	tok := token(t, v["createJWT"])
	d, err := h.Create(t.Context(), tok, body)
	if err != nil {
		t.Fatal(err)
	}
	public := strings.Fields(v["netpub"])
	if hex.EncodeToString(d.PublicKey) != public[0] || base64.StdEncoding.EncodeToString(d.PublicKey) != public[1] {
		t.Errorf("public key %x", d.PublicKey)
	}
	var sealed []byte
	if _, err := h.store.Beside().One(t.Context(), []any{&sealed}, "SELECT sealed FROM network_keys WHERE network = ?", encryption.Row(id)); err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(sealed) != v["sealed"] {
		t.Errorf("at rest %x", sealed)
	}
	want := `{"networkId":"` + v["net"] + `","ownerDid":"` + string(id.Owner()) + `","name":"default",` +
		`"members":[{"nodeId":"` + v["nodeDid"] + `","role":"primary"}],"threshold":{"n":1,"t":1},"state":"active",` +
		`"publicEncryptionKey":"` + public[1] + `","alg":"x25519-aes256gcm/v1","keyVersion":1,"keyBackend":"local-one-of-one",` +
		`"createdAt":"2030-03-17T17:45:00Z","updatedAt":"2030-03-17T17:45:00Z"}`
	if got := mustJSON(t, d); got != want {
		t.Errorf("descriptor %s\nwant %s", got, want)
	}
	_, err = h.Create(t.Context(), tok, body)
	refused(t, "the same token", err, tinycloud.ErrUnauthorized, "nonce already used")
}

func (h *host) testSealVectors(v map[string]string) {
	t := h.t
	public, err := hex.DecodeString(strings.Fields(v["netpub"])[0])
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte{0xcd}, 32)
	w, err := encryption.Wrap(bytes.NewReader(append(from(0x21, 32), bytes.Repeat([]byte{11}, 12)...)), public, data)
	if err != nil || "93 "+hex.EncodeToString(w) != v["wrapped"] || base64.StdEncoding.EncodeToString(w) != v["esk"] {
		t.Errorf("sealed data key: %x, %v", w, err)
	}
	if got, err := encryption.Unwrap(from(1, 32), w); err != nil || !bytes.Equal(got, data) {
		t.Errorf("opened: %x, %v", got, err)
	}
	if got := encryption.HashText(v["esk"]); got != v["eskHash"] {
		t.Errorf("hash of the sealed key: %s", got)
	}
	receiver := strings.Fields(v["rpub"])
	if got := encryption.HashText(receiver[0]); got != receiver[2] {
		t.Errorf("hash of the receiver: %s", got)
	}
	if got, err := encryption.Hash([]byte("{}")); err != nil || got != v["emptyHash"] {
		t.Errorf("hash of nothing: %s, %v", got, err)
	}
}

func (h *host) testDecryptVectors(v map[string]string, id tinycloud.NetworkID) {
	t := h.t
	body := []byte(v["body"])
	if got, err := encryption.Hash(body); err != nil || got != v["bodyHash"] {
		t.Errorf("hash of the body: %s, %v", got, err)
	}
	a, err := h.Decrypt(t.Context(), token(t, v["decryptJWT"]), id.String(), body)
	if err != nil {
		t.Fatal(err)
	}
	if a.InvocationCID != v["invocationCid"] || a.RequestHash != v["requestHash"] || base64.StdEncoding.EncodeToString(a.Signature) != v["sig"] {
		t.Errorf("answer %+v", a)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(mustJSON(t, a)), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "nodeSignature")
	if got := mustJSON(t, m); got != v["signedBytes"] {
		t.Errorf("signed %s\nwant %s", got, v["signedBytes"])
	}
	got, err := encryption.Unwrap(from(0x41, 32), a.WrappedKey)
	if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{0xcd}, 32)) {
		t.Errorf("data key %x, %v", got, err)
	}
}
