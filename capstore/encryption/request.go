package encryption

import (
	"encoding/json"
	"math"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// Abilities on a network.
const (
	AbilityCreate  = "tinycloud.encryption/network.create"
	AbilityDecrypt = "tinycloud.encryption/decrypt"
	AbilityRevoke  = "tinycloud.encryption/network.revoke"
)

// Algorithm is the one set of ciphers that is spoken.
const Algorithm = "x25519-aes256gcm/v1"

const (
	adminType   = "tinycloud.encryption.network-admin/v1"
	decryptType = "tinycloud.encryption.decrypt/v1"
	resultType  = "tinycloud.encryption.decrypt-result/v1"
)

// threshold is echoed to clients; nothing follows from it.
type threshold struct {
	N int64 `json:"n"`
	T int64 `json:"t"`
}

// createBody is what a network is created from.
type createBody struct {
	id        tinycloud.NetworkID
	threshold threshold
}

func readCreate(d document) (createBody, error) {
	f := fieldsOf(d)
	name, owner := f.text("name"), f.text("ownerDid")
	out := createBody{threshold: threshold{1, 1}}
	if v, ok := d.value.Get("threshold"); ok && v.Kind != recap.Null {
		g := fieldsOf(document{v})
		out.threshold = threshold{g.integer("n"), g.integer("t")}
		for _, n := range []int64{out.threshold.N, out.threshold.T} {
			if n < math.MinInt32 || n > math.MaxInt32 {
				g.fail("%d is no 32-bit integer", n)
			}
		}
		if g.err != nil {
			f.fail("threshold: %v", g.err)
		}
	}
	if f.err != nil {
		return out, invalid("%v", f.err)
	}
	var err error
	out.id, err = tinycloud.NewNetworkID(owner, name)
	return out, err
}

// decryptBody asks for a data key.
type decryptBody struct {
	kind, target, alg         string
	network                   tinycloud.NetworkID
	version                   int64
	key, keyHash              string // what is sealed to the network
	receiver, receiverKeyHash string // whom it is sealed for again
}

func readDecrypt(d document) (decryptBody, error) {
	f := fieldsOf(d)
	out := decryptBody{
		kind: f.text("type"), target: f.text("targetNode"), network: f.network("networkId"), alg: f.text("alg"), version: f.integer("keyVersion"),
		key: f.text("encryptedSymmetricKey"), keyHash: f.text("encryptedSymmetricKeyHash"),
		receiver: f.text("receiverPublicKey"), receiverKeyHash: f.text("receiverPublicKeyHash"),
	}
	f.only()
	if f.err != nil {
		return out, invalid("%v", f.err)
	}
	return out, nil
}

// facts are what a token says of its request.
type facts struct {
	kind, target, bodyHash   string
	network                  tinycloud.NetworkID
	action                   string // of who administers
	alg                      string // of who decrypts, as are those that follow
	version                  int64
	keyHash, receiverKeyHash string
}

// adminFacts reads one fact; what it says beside that does not matter.
func adminFacts(f *fields) facts {
	return facts{
		kind: f.text("type"), target: f.text("targetNode"), network: f.network("networkId"), bodyHash: f.text("bodyHash"),
		action: f.text("action"),
	}
}

func decryptFacts(f *fields) facts {
	out := facts{
		kind: f.text("type"), target: f.text("targetNode"), network: f.network("networkId"), bodyHash: f.text("bodyHash"),
		keyHash: f.text("encryptedSymmetricKeyHash"), receiverKeyHash: f.text("receiverPublicKeyHash"),
		alg: f.text("alg"), version: f.integer("keyVersion"),
	}
	f.only()
	return out
}

// findFacts returns the first of a token's facts that is of the wanted form.
func findFacts(raw []json.RawMessage, read func(*fields) facts) (facts, error) {
	for _, text := range raw {
		d, err := parse(text)
		if err != nil {
			continue
		}
		f := fieldsOf(d)
		if out := read(f); f.err == nil {
			return out, nil
		}
	}
	return facts{}, invalid("missing encryption invocation facts")
}
