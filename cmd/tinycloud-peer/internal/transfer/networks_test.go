package transfer_test

import (
	"bytes"
	"crypto/ed25519"
	"database/sql"
	"encoding/hex"
	"io"
	"path/filepath"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/reference"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// A network of the recorded reference's secret: the private key is the bytes 1 to 32.
const (
	recordedPublic = "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"
	recordedSealed = "010a0a0a0a0a0a0a0a0a0a0a0a9409314b9622b8b686311c905d0ba1c4eefb87966cd153238c1a773ded9fef8019475dd042c422c49b185dbd6e598ef1"
)

// source is what the secret of the recorded reference gives.
func source(t *testing.T) *encryption.Source {
	t.Helper()
	secret, err := config.ParseSecret(recordedSecret)
	must(t, err)
	keys, err := hostkeys.New(secret.Bytes())
	must(t, err)
	return &encryption.Source{Seal: keys.Derive(hostkeys.ContextNetworkSeal), Node: hostkeys.DIDKey(keys.NodeKey().Public().(ed25519.PublicKey))}
}

func TestNetworksAreTakenOver(t *testing.T) {
	data := untar(t, "1.16.0")
	path := filepath.Join(data, "caps.db")
	owner := captest.NewSession("alice")
	good, plain, ended := networktest.ID(owner.DID(), "default"), networktest.ID(owner.DID(), "plain"), networktest.ID(owner.DID(), "ended")
	fill(t, path, owner, map[string][]any{
		good:                                    {"active", recordedSealed, recordedPublic, "x25519-aes256gcm/v1"},
		plain:                                   {"rotating", "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20", recordedPublic, "x25519-aes256gcm/v1"},
		ended:                                   {"revoked", recordedSealed, recordedPublic, "x25519-aes256gcm/v1"},
		networktest.ID(owner.DID(), "damaged"):  {"active", recordedSealed[:100] + "00" + recordedSealed[102:], recordedPublic, "x25519-aes256gcm/v1"},
		networktest.ID(owner.DID(), "not-ours"): {"active", recordedSealed, recordedSealed[2:66], "x25519-aes256gcm/v1"},
		networktest.ID(owner.DID(), "other"):    {"active", recordedSealed, recordedPublic, "other"},
		networktest.ID(owner.DID(), "failed"):   {"failed", "", recordedPublic, "x25519-aes256gcm/v1"},
		"nonsense":                              {"active", recordedSealed, recordedPublic, "x25519-aes256gcm/v1"},
	})
	public, err := hex.DecodeString(recordedPublic)
	must(t, err)
	for what, secret := range map[string]string{"with its secret": recordedSecret, "with own keys": ""} {
		t.Run(what, func(t *testing.T) {
			cfg := settings(t, secret)
			take := func(d *node.Data, s *encryption.Source) *transfer.TakeOver {
				t.Helper()
				from, err := reference.Open(t.Context(), file(t, path), columnKey(t))
				must(t, err)
				o := &transfer.TakeOver{From: from, Blocks: reference.Dir(filepath.Join(data, "blocks")), To: d, Source: s, Log: io.Discard}
				_, err = o.Run(t.Context())
				must(t, err)
				must(t, from.Close())
				return o
			}
			with(t, cfg, func(d *node.Data) {
				if o := take(d, nil); o.Networks != 0 || o.Odd.Count(transfer.FoundNetwork) != 7 {
					t.Errorf("without the secret: %d taken over, %d not", o.Networks, o.Odd.Count(transfer.FoundNetwork))
				}
				if o := take(d, source(t)); o.Networks != 3 || o.Odd.Count(transfer.FoundNetwork) != 4 || o.Odd.Len() != 5 {
					o.Odd.Print(t.Output())
					t.Errorf("%d networks", o.Networks)
				}
				if o := take(d, source(t)); o.Networks != 0 {
					t.Errorf("again: %d networks", o.Networks)
				}
			})
			with(t, cfg, func(d *node.Data) {
				for id, state := range map[string]string{good: "active", plain: "rotating", ended: "revoked"} {
					parsed, err := tinycloud.ParseNetworkID(id)
					must(t, err)
					x, err := d.Networks.Describe(t.Context(), parsed)
					if err != nil || x.State != state || !bytes.Equal(x.PublicKey, public) || x.KeyVersion != 1 ||
						!x.CreatedAt.Equal(time.Date(2026, 8, 21, 10, 0, 0, 123456789, time.UTC)) {
						t.Errorf("%s: %+v, %v", id, x, err)
					}
				}
				decrypts(t, d, owner, good, public)
				decrypts(t, d, owner, plain, public)
			})
		})
	}
}

// fill adds networks to a reference's database: of each state, sealed and public key in hex, and algorithm.
func fill(t *testing.T, path string, owner *captest.SessionKey, networks map[string][]any) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	const at = "2026-08-21T10:00:00.123456789Z"
	for id, x := range networks {
		sealed, err := hex.DecodeString(x[1].(string))
		must(t, err)
		public, err := hex.DecodeString(x[2].(string))
		must(t, err)
		_, err = db.ExecContext(t.Context(), "INSERT INTO encryption_network (network_id, owner_did, name, alg, key_version, public_key, state, threshold_n, threshold_t, key_backend, sealed_private_key, created_at, updated_at) VALUES (?, ?, 'x', ?, 1, ?, ?, 1, 1, 'local-one-of-one', ?, ?, ?)",
			id, string(owner.DID()), x[3], public, x[0], sealed, at, at)
		must(t, err)
	}
}

// decrypts has an owner's key ask for what is sealed to a network.
func decrypts(t *testing.T, d *node.Data, owner *captest.SessionKey, id string, public []byte) {
	t.Helper()
	c := networktest.Client{Key: owner, Node: hostkeys.DIDKey(d.Keys.NodeKey().Public().(ed25519.PublicKey))}
	data := bytes.Repeat([]byte{0xcd}, 32)
	q, receiver := c.Decrypt(id, 1, networktest.Seal(public, data))
	q.Token.Expires = time.Now().Add(time.Minute)
	header := q.Header()
	tok, err := capstore.ParseInvocation(header)
	must(t, err)
	a, err := d.Networks.Decrypt(t.Context(), tok, id, []byte(q.Text()))
	must(t, err)
	if got, err := receiver.Open(q, header, string(networktest.Canonical(a))); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s: %x, %v", id, got, err)
	}
}
