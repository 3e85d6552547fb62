package transfer_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// spellings are the forms in which a key could stand somewhere, in base64 at each of three places.
func spellings(key []byte) (out [][]byte) {
	out = append(out, key, []byte(hex.EncodeToString(key)), []byte(strings.ToUpper(hex.EncodeToString(key))))
	for shift := range 3 {
		padded := append(make([]byte, shift), key...)
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := e.EncodeToString(padded)
			first, last := (shift*8+5)/6, len(text)-1 // letters that are of the key alone
			out = append(out, []byte(text[first:last]))
		}
	}
	return out
}

func holds(text, key []byte) bool {
	for _, s := range spellings(key) {
		if bytes.Contains(text, s) {
			return true
		}
	}
	return false
}

func TestSpellings(t *testing.T) {
	key := []byte("\xff\xfe\xfd and some more of the key \x00\x01")
	for shift := range 4 {
		plain := append([]byte("abcd"[:shift]), key...)
		for what, text := range map[string]string{
			"raw": string(plain), "hex": hex.EncodeToString(plain), "HEX": strings.ToUpper(hex.EncodeToString(plain)),
			"base64": base64.StdEncoding.EncodeToString(plain) + "x", "base64url": base64.URLEncoding.EncodeToString(append(plain, "tail"...)),
		} {
			if !holds([]byte("x"+text), key) {
				t.Errorf("%s behind %d bytes is not found", what, shift)
			}
		}
	}
	if holds([]byte(strings.Repeat("nothing of it ", 20)), key) {
		t.Error("found in something else")
	}
}

// record is all that a node said while a test ran.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

// said asks a node and keeps the answer.
func (r *record) said(t *testing.T, method, target, token, body string) (int, string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	must(t, err)
	q.Header.Set("Authorization", token)
	q.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(q)
	must(t, err)
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	_, _ = r.Write(b)
	return resp.StatusCode, string(b)
}

// TestKeysStayInside has a network used and misused, and looks for its private key and a data key in all that the node
// says: logs, metrics, answers and refusals, answers to the operator, exports; and, as a thief without the secret would,
// in all that it stores, backups too.
func TestKeysStayInside(t *testing.T) {
	cfg, _, err := config.Load(config.LoadOptions{Dir: t.TempDir(), Environ: []string{
		"TINYCLOUD_ADDRESS=127.0.0.1", "TINYCLOUD_PORT=0", "TINYCLOUD_PROMETHEUS_PORT=0", "TINYCLOUD_ADMIN_PORT=0", "TINYCLOUD_P2P_LISTEN=/ip4/127.0.0.1/tcp/0",
		"TINYCLOUD_STORAGE_DATADIR=" + filepath.Join(t.TempDir(), "data"), "TINYCLOUD_ADMIN_SECRET=let me in, please",
	}})
	must(t, err)
	var out record
	wallet := captest.RandomWallet()
	space, data := useNetwork(t, cfg, &out, wallet)

	var car bytes.Buffer
	var keys *hostkeys.Static
	with(t, cfg, func(d *node.Data) {
		keys = d.Keys
		_, err := transfer.Export(t.Context(), d, space, &car, io.Discard)
		must(t, err)
	})
	private := privateKey(t, filepath.Join(cfg.Storage.Datadir, "caps.db"), keys)
	if !bytes.Contains(car.Bytes(), []byte("encryptedSymmetricKey")) || !strings.Contains(out.text.String(), "network_decrypt") {
		t.Fatal("there is nothing to look in")
	}
	for what, key := range map[string][]byte{"private key": private, "data key": data} {
		if holds(out.text.Bytes(), key) {
			t.Errorf("the node told the %s", what)
		}
		if holds(car.Bytes(), key) {
			t.Errorf("the export has the %s", what)
		}
		files := 0
		must(t, filepath.WalkDir(cfg.Storage.Datadir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if files++; holds(b, key) {
				t.Errorf("%s has the %s", path, what)
			}
			return err
		}))
		if files < 2 {
			t.Errorf("%d files", files)
		}
	}
}

// useNetwork runs a node on which an owner creates a network, keeps a secret, and asks for its key in good and bad ways.
func useNetwork(t *testing.T, cfg config.Config, out *record, wallet *captest.Wallet) (space tinycloud.SpaceID, data []byte) {
	t.Helper()
	n, err := node.New(t.Context(), cfg, node.Options{Version: "test", Log: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	defer func() {
		cancel()
		must(t, <-done)
	}()
	ask := func(want int, method, path, token, body string) string {
		t.Helper()
		status, answer := out.said(t, method, n.URL()+path, token, body)
		if status != want {
			t.Fatalf("%s %s: %d %s", method, path, status, answer)
		}
		return answer
	}
	var info struct{ NodeID string }
	must(t, json.Unmarshal([]byte(ask(200, "GET", "/info", "", "")), &info))
	space = wallet.Space("secrets")
	id := networktest.ID(wallet.DID(), "default")
	c := networktest.Client{Key: captest.RandomSession(), Node: info.NodeID}
	session := wallet.SignDelegation(captest.DelegationOptions{Audience: c.Key.URI(), Caps: captest.Caps{
		space.String() + "/kv": {"tinycloud.kv/put"}, id: {"tinycloud.encryption/decrypt", "tinycloud.encryption/network.create", "tinycloud.encryption/network.revoke"},
	}})
	c.Proofs = []tinycloud.Hash{captest.ID(session)}
	ask(200, "POST", "/delegate", wallet.SignHost(space, ask(200, "GET", "/peer/generate/"+url.PathEscape(space.String()), "", "")), "")
	ask(200, "POST", "/delegate", session, "")
	create := c.Create(wallet.DID(), "default")
	descriptor := ask(200, "POST", "/encryption/networks", create.Header(), create.Text())
	e, data, err := networktest.Encrypt(descriptor, []byte("s3cret"))
	must(t, err)
	put := c.Key.Invoke(captest.TokenOptions{Caps: captest.Caps{space.String() + "/kv/vault/secrets/A": {"tinycloud.kv/put"}}, Proofs: c.Proofs})
	ask(200, "POST", "/invoke", put, string(networktest.Canonical(e)))

	path := "/encryption/networks/" + url.PathEscape(id)
	for _, to := range []string{path + "/decrypt", "/invoke"} {
		q, receiver := c.Decrypt(id, 1, e.EncryptedSymmetricKey)
		q.Token.Expires = time.Now().Add(time.Minute)
		header := q.Header()
		opened, err := receiver.Open(q, header, ask(200, "POST", to, header, q.Text()))
		if err != nil || !bytes.Equal(opened, data) {
			t.Fatal("the data key is another:", err)
		}
	}
	for _, member := range []string{"encryptedSymmetricKey", "receiverPublicKey"} {
		for want, value := range map[int]any{400: base64.StdEncoding.EncodeToString(make([]byte, 93))} {
			q, _ := c.Decrypt(id, 1, e.EncryptedSymmetricKey)
			q.Body[member] = value
			ask(want, "POST", path+"/decrypt", q.Bind().Header(), q.Text())
			q.Facts["bodyHash"] = "x"
			ask(401, "POST", path+"/decrypt", q.Header(), q.Text())
		}
	}
	create = c.Create(wallet.DID(), "default")
	ask(409, "POST", "/encryption/networks", create.Header(), create.Text())
	ask(200, "GET", path, "", "")
	ask(200, "GET", "/.well-known/encryption/network/default?ownerDid="+url.QueryEscape(string(wallet.DID())), "", "")
	for _, admin := range []string{"/admin/node", "/admin/spaces", "/admin/spaces/" + url.PathEscape(space.String()), "/admin/usage", "/admin/nodes", "/admin/quota"} {
		ask(200, "GET", admin, "Bearer let me in, please", "")
	}
	if status, text := out.said(t, "GET", n.MetricsURL(), "", ""); status != 200 || !strings.Contains(text, `route="network_decrypt",status="200"} 1`) {
		t.Errorf("metrics: %d %s", status, text)
	}
	revoke := c.Revoke(id)
	ask(204, "POST", path+"/revoke", revoke.Header(), "")
	q, _ := c.Decrypt(id, 1, e.EncryptedSymmetricKey)
	ask(401, "POST", path+"/decrypt", q.Header(), q.Text())
	return space, data
}

// privateKey opens the one private key in a database, with code of its own.
func privateKey(t *testing.T, path string, keys *hostkeys.Static) []byte {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	var public, sealed []byte
	must(t, db.QueryRowContext(t.Context(), "SELECT public_key, sealed FROM network_keys").Scan(&public, &sealed))
	seal := keys.Derive("tinycloud/encryption/network-seal")
	block, err := aes.NewCipher(seal[:])
	must(t, err)
	gcm, err := cipher.NewGCM(block)
	must(t, err)
	private, err := gcm.Open(nil, sealed[1:13], sealed[13:], nil)
	must(t, err)
	k, err := ecdh.X25519().NewPrivateKey(private)
	must(t, err)
	if !bytes.Equal(k.PublicKey().Bytes(), public) {
		t.Fatal("the private key is of another public one")
	}
	return private
}
