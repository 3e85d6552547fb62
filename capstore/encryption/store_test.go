package encryption_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

func TestLife(t *testing.T) { everywhere(t, testLife) }

func testLife(t *testing.T, database string) {
	h := open(t, database, begin, nil)
	alice := h.owner(captest.NewSession("alice"))
	id := networktest.ID(alice.Key.DID(), "default")
	parsed, err := tinycloud.ParseNetworkID(id)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Describe(t.Context(), parsed)
	refused(t, "describe what is not", err, tinycloud.ErrNotFound, "network not found")
	refused(t, "revoke what is not", h.Revoke(t.Context(), h.signed(alice.Revoke(id)), id), tinycloud.ErrNotFound, "network not found")

	made := h.mustCreate(alice.Create(alice.Key.DID(), "default"))
	e, data := encrypt(t, made)
	h.pass(time.Second)
	_, err = h.create(alice.Create(alice.Key.DID(), "default"))
	refused(t, "create again", err, tinycloud.ErrConflict, "network already exists")
	if got, err := h.decrypt(alice, e); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%x, %v", got, err)
	}

	// Another process, or this one later, knows the same.
	h.stop()
	h = open(t, database, h.now(), nil)
	if d, err := h.Describe(t.Context(), parsed); err != nil || string(networktest.Canonical(map[string]any{"descriptor": d})) != made {
		t.Errorf("%+v, %v; want %s", d, err, made)
	}
	if got, err := h.decrypt(alice, e); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after a restart: %x, %v", got, err)
	}

	q, _ := alice.Decrypt(id, 1, e.EncryptedSymmetricKey)
	again := alice.Revoke(id)
	again.Token.Nonce = "urn:uuid:once"
	if err := h.Revoke(t.Context(), h.signed(again), id); err != nil {
		t.Fatal(err)
	}
	again.Token.Expires = h.now().Add(2 * time.Minute)
	refused(t, "a nonce twice", h.Revoke(t.Context(), h.signed(again), id), tinycloud.ErrUnauthorized, "nonce already used")
	if err := h.Revoke(t.Context(), h.signed(alice.Revoke(id)), id); err != nil {
		t.Errorf("revoke again: %v", err)
	}
	_, err = h.Decrypt(t.Context(), h.signed(q), id, []byte(q.Text()))
	refused(t, "decrypt what is revoked", err, tinycloud.ErrUnauthorized, "network has been revoked")
	_, err = h.create(alice.Create(alice.Key.DID(), "default"))
	refused(t, "create what is revoked", err, tinycloud.ErrConflict, "network already exists")
	if d, err := h.Describe(t.Context(), parsed); err != nil || d.State != "revoked" || !d.UpdatedAt.After(d.CreatedAt) {
		t.Errorf("revoked: %+v, %v", d, err)
	}
	outcomes := h.outcomes(parsed)
	if outcomes != "allowed allowed denied:revoked" {
		t.Errorf("audit: %s", outcomes)
	}
}

// TestConcurrentCreates has one winner, and the others told of it.
func TestConcurrentCreates(t *testing.T) { everywhere(t, testConcurrentCreates) }

func testConcurrentCreates(t *testing.T, database string) {
	hosts := []*host{open(t, database, begin, nil)}
	if !strings.HasSuffix(database, "caps.db") { // two processes on a server's database are one host
		hosts = append(hosts, open(t, database, begin, nil))
	}
	alice := hosts[0].owner(captest.NewSession("alice"))
	var group sync.WaitGroup
	var won, lost atomic.Int64
	for i := range 16 {
		h := hosts[i%len(hosts)]
		q := alice.Create(alice.Key.DID(), "default")
		tok := h.signed(q)
		group.Go(func() {
			switch _, err := h.Create(context.WithoutCancel(t.Context()), tok, []byte(q.Text())); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, tinycloud.ErrConflict):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 || lost.Load() != 15 {
		t.Errorf("%d won, %d lost", won.Load(), lost.Load())
	}
	if n := hosts[0].count("SELECT count(*) FROM network_keys"); n != 1 {
		t.Errorf("%d keys", n)
	}
}

// TestKeys: every key that is held opens what was sealed to it, by the version that is asked for; one is advertised.
func TestKeys(t *testing.T) { everywhere(t, testKeys) }

func testKeys(t *testing.T, database string) {
	h := open(t, database, begin, nil)
	alice := h.owner(captest.NewSession("alice"))
	first := h.mustCreate(alice.Create(alice.Key.DID(), "default"))
	id, err := tinycloud.ParseNetworkID(networktest.ID(alice.Key.DID(), "default"))
	if err != nil {
		t.Fatal(err)
	}
	seal := h.keys.Derive(hostkeys.ContextNetworkSeal)
	add := func(version int64, private []byte, created time.Time, held bool) []byte {
		pub, err := encryption.Public(private)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := encryption.Box(bytes.NewReader(bytes.Repeat([]byte{3}, 12)), seal[:], private)
		if err != nil {
			t.Fatal(err)
		}
		var column any
		if held {
			column = sealed
		}
		h.beside(func(tx capstore.BesideTx) error {
			return tx.Add(capstore.Insert{Into: "network_keys", Columns: "network version public_key sealed created creator"},
				encryption.Row(id), version, pub, column, created.UnixNano(), "did:key:zOther")
		})
		return pub
	}
	advertised := func() (string, int64, string) {
		d, err := h.Describe(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(d.PublicKey), d.KeyVersion, string(networktest.Canonical(map[string]any{"descriptor": d}))
	}
	opens := func(what string, e networktest.Envelope, data []byte) {
		t.Helper()
		if got, err := h.decrypt(alice, e); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %x, %v", what, got, err)
		}
	}
	e1, d1 := encrypt(t, first)
	own, _, _ := advertised()

	earlier := add(1, bytes.Repeat([]byte{5}, 32), begin.Add(-time.Hour), true)
	if pub, v, _ := advertised(); pub != base64.StdEncoding.EncodeToString(earlier) || v != 1 {
		t.Errorf("advertised %s of version %d, not the earlier one", pub, v)
	}
	later := add(1, bytes.Repeat([]byte{6}, 32), begin.Add(time.Hour), true)
	add(1, bytes.Repeat([]byte{7}, 32), begin.Add(-2*time.Hour), false)
	add(3, bytes.Repeat([]byte{8}, 32), begin, false)
	pub, v, second := advertised()
	if pub != base64.StdEncoding.EncodeToString(earlier) || v != 1 || pub == own {
		t.Errorf("advertised %s of version %d: a key that is not held", pub, v)
	}
	e2, d2 := encrypt(t, second)
	e3, d3 := e2, bytes.Repeat([]byte{0xab}, 32)
	e3.EncryptedSymmetricKey = networktest.Seal(later, d3)
	opens("sealed to the own key", e1, d1)
	opens("sealed to the advertised key", e2, d2)
	opens("sealed to the later key", e3, d3)

	newer := add(2, bytes.Repeat([]byte{9}, 32), begin.Add(time.Hour), true)
	pub, v, third := advertised()
	if pub != base64.StdEncoding.EncodeToString(newer) || v != 2 {
		t.Errorf("advertised %s of version %d, not the newer", pub, v)
	}
	e4, d4 := encrypt(t, third)
	opens("of version 1, when there is a version 2", e1, d1)
	opens("of version 2", e4, d4)
	e4.KeyVersion = 1
	_, err = h.decrypt(alice, e4)
	refused(t, "of another version", err, tinycloud.ErrInvalid, "does not open")
	for _, v := range []int64{0, 3, 4, -1} {
		e4.KeyVersion = v
		_, err = h.decrypt(alice, e4)
		refused(t, fmt.Sprint("of version ", v), err, tinycloud.ErrUnauthorized, "key version does not match")
	}

	for _, state := range []string{"rotating", "pending", "generating", "failed", "active"} {
		h.beside(func(tx capstore.BesideTx) error { return tx.Exec("UPDATE networks SET state = ?", state) })
		if state == "rotating" || state == "active" {
			opens(state, e1, d1)
			continue
		}
		_, err := h.decrypt(alice, e1)
		refused(t, state, err, tinycloud.ErrConflict, "network is not active (state: "+state+")")
	}

	// A key that this node's secret does not open is the node's fault, and the text does not say more.
	h.beside(func(tx capstore.BesideTx) error { return tx.Exec("UPDATE network_keys SET sealed = public_key") })
	if _, err = h.decrypt(alice, e1); !errors.Is(err, tinycloud.ErrUnavailable) || errors.As(err, new(*tinycloud.Refusal)) {
		t.Errorf("damaged: %v", err)
	}
}

func TestBounds(t *testing.T) { everywhere(t, testBounds) }

func testBounds(t *testing.T, database string) {
	h := open(t, database, begin, nil)
	alice, bob := h.owner(captest.NewSession("alice")), h.owner(captest.NewSession("bob"))
	stranger := h.client(captest.NewSession("stranger"))
	_, err := h.create(stranger.Create(stranger.Key.DID(), "default"))
	refused(t, "an owner who is not hosted", err, tinycloud.ErrUnauthorized, "no space of the owner is hosted here")
	made := ""
	for i := range encryption.MaxNetworks {
		made = h.mustCreate(alice.Create(alice.Key.DID(), fmt.Sprint("n", i)))
	}
	_, err = h.create(alice.Create(alice.Key.DID(), "more"))
	refused(t, "one too many", err, tinycloud.ErrForbidden, "16 encryption networks")
	h.mustCreate(bob.Create(bob.Key.DID(), "default"))

	h.beside(func(tx capstore.BesideTx) error { // as so many requests that are refused leave them
		for i := range encryption.MaxNonces - encryption.MaxNetworks - 1 {
			id := tinycloud.Sum([]byte{byte(i)})
			err := tx.Add(capstore.Insert{Into: "network_nonces", Columns: "id owner expires"}, id[:], string(alice.Key.DID()), h.now().Add(time.Minute).Unix())
			if err != nil {
				return err
			}
		}
		return nil
	})
	_, err = h.create(alice.Create(alice.Key.DID(), "more"))
	refused(t, "too many nonces", err, tinycloud.ErrBusy, "too many requests")
	h.mustCreate(bob.Create(bob.Key.DID(), "second"))
	h.pass(3 * time.Minute)
	_, err = h.create(alice.Create(alice.Key.DID(), "more"))
	refused(t, "when they have ended", err, tinycloud.ErrForbidden, "16 encryption networks")
	if n := h.count("SELECT count(*) FROM network_nonces"); n != 3 {
		t.Errorf("%d nonces", n)
	}
	h.pass(3 * time.Minute)
	h.expire()
	if n := h.count("SELECT count(*) FROM network_nonces"); n != 0 {
		t.Errorf("%d nonces after all", n)
	}

	e, _ := encrypt(t, made)
	id, err := tinycloud.ParseNetworkID(e.NetworkID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.decrypt(alice, e); err != nil {
		t.Fatal(err)
	}
	h.beside(func(tx capstore.BesideTx) error {
		return tx.Exec("UPDATE networks SET audited = ? WHERE id = ?", encryption.MaxAudit-1, encryption.Row(id))
	})
	q, _ := alice.Decrypt(e.NetworkID, 1, e.EncryptedSymmetricKey)
	tok := h.signed(q)
	for range 3 { // a request is remembered once
		if _, err := h.Decrypt(t.Context(), tok, e.NetworkID, []byte(q.Text())); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.outcomes(id); got != "allowed allowed" {
		t.Errorf("audit: %s", got)
	}
	if _, err := h.decrypt(alice, e); err != nil {
		t.Fatal(err)
	}
	if n := h.count("SELECT count(*) FROM network_audit WHERE network = ?", encryption.Row(id)); n != 2 {
		t.Errorf("%d decisions: the oldest had to go", n)
	}
	h.pass(encryption.AuditLife)
	h.expire()
	if n := h.count("SELECT count(*) FROM network_audit"); n != 2 {
		t.Errorf("%d decisions before their time", n)
	}
	h.pass(time.Second)
	h.expire()
	if n := h.count("SELECT count(*) FROM network_audit"); n != 0 {
		t.Errorf("%d decisions after their time", n)
	}
}

// TestDatabaseFails: what a database can't tell is no refusal of the client.
func TestDatabaseFails(t *testing.T) {
	h := open(t, filepath.Join(t.TempDir(), "caps.db"), begin, nil)
	alice := h.owner(captest.NewSession("alice"))
	e, _ := encrypt(t, h.mustCreate(alice.Create(alice.Key.DID(), "default")))
	h.beside(func(tx capstore.BesideTx) error { return tx.Exec("ALTER TABLE network_audit RENAME TO gone") })
	_, err := h.decrypt(alice, e)
	if !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("without an audit: %v", err)
	}
	h.stop()
	if _, err := h.decrypt(alice, e); err == nil || errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("without a database: %v", err)
	}
	if _, err := h.create(alice.Create(alice.Key.DID(), "second")); err == nil || errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("create without a database: %v", err)
	}
}

// TestTake adds another node's key to the network of the same name here, and its end.
func TestTake(t *testing.T) { everywhere(t, testTake) }

func testTake(t *testing.T, database string) {
	h := open(t, database, begin, nil)
	alice := h.owner(captest.NewSession("alice"))
	e1, d1 := encrypt(t, h.mustCreate(alice.Create(alice.Key.DID(), "default")))
	id, err := tinycloud.ParseNetworkID(e1.NetworkID)
	if err != nil {
		t.Fatal(err)
	}
	from := encryption.Source{Seal: [32]byte{1}, Node: "did:key:zOther"}
	private := bytes.Repeat([]byte{5}, 32)
	public, err := encryption.Public(private)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := encryption.Box(bytes.NewReader(bytes.Repeat([]byte{3}, 12)), from.Seal[:], private)
	if err != nil {
		t.Fatal(err)
	}
	x := encryption.Foreign{
		ID: id, State: "active", N: 1, T: 1, Algorithm: encryption.Algorithm, Version: 1, Public: public, Sealed: sealed,
		Created: begin.Add(-time.Hour), Updated: begin.Add(-time.Hour),
	}
	take := func(x encryption.Foreign, want bool) {
		t.Helper()
		if added, err := h.Take(t.Context(), from, x); err != nil || added != want {
			t.Errorf("%v, %v", added, err)
		}
	}
	take(x, true)
	take(x, false)
	e2, d2 := e1, bytes.Repeat([]byte{0xab}, 32)
	e2.EncryptedSymmetricKey = networktest.Seal(public, d2)
	for what, tt := range map[string]struct {
		e    networktest.Envelope
		data []byte
	}{"own key": {e1, d1}, "key of the other node": {e2, d2}} {
		if got, err := h.decrypt(alice, tt.e); err != nil || !bytes.Equal(got, tt.data) {
			t.Errorf("%s: %x, %v", what, got, err)
		}
	}
	if n := h.count("SELECT count(*) FROM network_keys WHERE sealed = ?", sealed); n != 0 {
		t.Error("the key is stored as it was sealed there")
	}
	for what, change := range map[string]func(x *encryption.Foreign){
		"another public key": func(x *encryption.Foreign) { x.Public = bytes.Repeat([]byte{1}, 32) },
		"another seal":       func(x *encryption.Foreign) { x.Sealed = append(bytes.Clone(x.Sealed[:60]), x.Sealed[60]^1) },
		"no key":             func(x *encryption.Foreign) { x.Sealed = nil },
		"another algorithm":  func(x *encryption.Foreign) { x.Algorithm = "x" },
		"a passing state":    func(x *encryption.Foreign) { x.State = "pending" },
	} {
		bad := x
		change(&bad)
		if _, err := h.Take(t.Context(), from, bad); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	x.State = "revoked"
	take(x, true)
	take(x, false)
	x.State = "active"
	take(x, false)
	if d, err := h.Describe(t.Context(), id); err != nil || d.State != "revoked" {
		t.Errorf("%+v, %v", d, err)
	}
}
