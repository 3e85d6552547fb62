package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

// fromFile returns the settings of a configuration file on top of those of every test.
func fromFile(t *testing.T, text string) config.Config {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "tinycloud.toml")
	text = fmt.Sprintf("[global]\naddress = \"127.0.0.1\"\nport = 0\n%s\n[global.prometheus]\nport = 0\n[global.p2p]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n[global.admin]\nsecret = \"let me in, please\"\n", text)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(config.LoadOptions{File: file, Environ: []string{"TINYCLOUD_STORAGE_DATADIR=" + filepath.Join(dir, "data")}})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// wallet is an owner who signs in at nodes.
type wallet struct {
	*captest.Wallet
	space   tinycloud.SpaceID
	session *captest.SessionKey
	grant   string
}

func newWallet(name string) *wallet {
	w := &wallet{Wallet: captest.RandomWallet(), session: captest.RandomSession()}
	w.space = w.Space(name)
	w.grant = w.SignDelegation(captest.DelegationOptions{Audience: w.session.URI(), Caps: captest.Caps{
		w.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"},
	}})
	return w
}

// host posts the delegation that makes a node a host.
func (w *wallet) host(t *testing.T, n *node.Node) (int, string) {
	t.Helper()
	_, did := call(t, http.MethodGet, n.URL()+"/peer/generate/"+url.PathEscape(w.space.String()), "", "")
	return call(t, http.MethodPost, n.URL()+"/delegate", w.SignHost(w.space, did), "")
}

// signIn hosts the Space and delegates to the session.
func (w *wallet) signIn(t *testing.T, n *node.Node) *wallet {
	t.Helper()
	if status, answer := w.host(t, n); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	if status, answer := call(t, http.MethodPost, n.URL()+"/delegate", w.grant, ""); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	return w
}

// put writes a value of a number of bytes and compares the answer.
func (w *wallet) put(t *testing.T, n *node.Node, key string, size, want int, text string) {
	t.Helper()
	status, answer := call(t, http.MethodPost, n.URL()+"/invoke", w.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{w.space.String() + "/kv/" + key: {"tinycloud.kv/put"}}, Proofs: []tinycloud.Hash{captest.ID(w.grant)},
	}), strings.Repeat(key, size))
	if status != want || answer != text {
		t.Errorf("put %s: %d %q, want %d %q", key, status, answer, want, text)
	}
}

func quotaPath(n *node.Node, space tinycloud.SpaceID) string {
	return n.URL() + "/admin/quota/" + url.PathEscape(space.String())
}

func TestAllowlistOfAFile(t *testing.T) {
	var status atomic.Int64
	named := newWallet("default")
	list := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s := int(status.Load()); s != 200 {
			w.WriteHeader(s)
			return
		}
		_, _ = io.WriteString(w, named.space.String()+"\n")
	}))
	defer list.Close()
	status.Store(503)
	cfg := fromFile(t, "[global.spaces]\nallowlist = \""+list.URL+"/list\"\n")
	n, stop := run(t, cfg)
	down := newWallet("default")
	if got, answer := down.host(t, n); got != 503 || !strings.Contains(answer, "allow list") {
		t.Errorf("list down: %d %s", got, answer)
	}
	status.Store(200)
	stranger := newWallet("default")
	if got, answer := stranger.host(t, n); got != 403 || answer != "Space not allowed" {
		t.Errorf("stranger: %d %s", got, answer)
	}
	named.signIn(t, n).put(t, n, "a", 1, 200, "")
	// What is hosted stays, whatever the list says later; and the list is not asked after a restart either.
	stop()
	status.Store(404)
	n, _ = run(t, cfg)
	if got, answer := named.host(t, n); got != 200 {
		t.Errorf("hosted already: %d %s", got, answer)
	}
	named.put(t, n, "b", 1, 200, "")
	if got, _ := call(t, http.MethodGet, n.URL()+"/admin/spaces", bearer, ""); got != 200 {
		t.Error(got)
	}
	if _, answer := call(t, http.MethodGet, n.URL()+"/admin/usage", bearer, ""); !strings.Contains(answer, `"count":1`) {
		t.Errorf("refused Spaces are hosted: %s", answer)
	}
}

func TestQuotaOfAFile(t *testing.T) {
	owner := newWallet("default")
	unknown := newWallet("default")
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/quota/"+owner.space.String() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, `{"storage_limit_bytes":10}`)
	}))
	defer service.Close()
	secret := strings.Replace(service.URL, "http://", "http://user:password@", 1)
	cfg := fromFile(t, "quota_url = \""+secret+"/\"\n[global.storage]\nlimit = \"20 B\"\n[global.public_spaces]\nstorage_limit = 5\n")
	n, stop := run(t, cfg)
	if _, info := call(t, http.MethodGet, n.URL()+"/info", "", ""); !strings.Contains(info, `"quota_url":"`+service.URL+`"`) {
		t.Error(info)
	}
	const text = "Write exceeds remaining storage. Used: 0 bytes, Limit: %d bytes"
	owner.signIn(t, n).put(t, n, "a", 11, 413, fmt.Sprintf(text, 10))
	unknown.signIn(t, n).put(t, n, "a", 21, 413, fmt.Sprintf(text, 20))
	public := newWallet("public").signIn(t, n)
	public.put(t, n, "a", 6, 413, fmt.Sprintf(text, 5))
	owner.put(t, n, "a", 10, 200, "")
	owner.put(t, n, "b", 1, 402, "Storage quota exceeded. Used: 10 bytes, Limit: 10 bytes")
	// What the operator sets goes before, at once and after a restart.
	if status, answer := call(t, http.MethodPut, quotaPath(n, owner.space), bearer, `{"limit_bytes":12}`); status != 200 {
		t.Fatal(status, answer)
	}
	owner.put(t, n, "b", 1, 200, "")
	if status, answer := call(t, http.MethodPut, quotaPath(n, public.space), bearer, `{"limit_bytes":1000}`); status != 200 {
		t.Fatal(status, answer)
	}
	public.put(t, n, "a", 6, 413, fmt.Sprintf(text, 5))
	stop()
	n, _ = run(t, cfg)
	owner.put(t, n, "c", 2, 413, "Write exceeds remaining storage. Used: 11 bytes, Limit: 12 bytes")
	status, answer := call(t, http.MethodDelete, quotaPath(n, owner.space), bearer, "")
	if want := quotaJSON(owner.space, "null", "10", "11"); status != 200 || strings.TrimSpace(answer) != want {
		t.Errorf("delete: %d %s, want %s", status, answer, want)
	}
	owner.put(t, n, "c", 1, 402, "Storage quota exceeded. Used: 11 bytes, Limit: 10 bytes")
}

func quotaJSON(space tinycloud.SpaceID, override, effective, used string) string {
	return fmt.Sprintf(`{"space_id":"%s","override_bytes":%s,"effective_limit_bytes":%s,"current_usage_bytes":%s}`, space, override, effective, used)
}

func TestAdminQuota(t *testing.T) {
	n, _ := run(t, fromFile(t, ""))
	owner := newWallet("default").signIn(t, n)
	owner.put(t, n, "a", 3, 200, "")
	away := newWallet("default").space
	space := func(s tinycloud.SpaceID) string { return quotaPath(n, s) }
	all := n.URL() + "/admin/quota"
	requests := []struct {
		method, target, body string
		status               int
		want                 string // of a 200
	}{
		{"GET", all, "", 200, `{"overrides":{},"default_limit_bytes":null}`},
		{"GET", space(owner.space), "", 200, quotaJSON(owner.space, "null", "null", "3")},
		{"GET", space(away), "", 200, quotaJSON(away, "null", "null", "null")},
		{"PUT", space(owner.space), `{"limit_bytes":0}`, 200, quotaJSON(owner.space, "0", "0", "3")},
		{"PUT", space(owner.space), ` {"limit_bytes": 9223372036854775807} `, 200, quotaJSON(owner.space, "9223372036854775807", "9223372036854775807", "3")},
		{"PUT", space(away), `{"limit_bytes":7}`, 200, quotaJSON(away, "7", "7", "null")},
		{"PUT", space(away), `{"limit_bytes":-1}`, 400, ""},
		{"PUT", space(away), `{"limit_bytes":1.5}`, 400, ""},
		{"PUT", space(away), `{"limit_bytes":9223372036854775808}`, 400, ""},
		{"PUT", space(away), `{"limit_bytes":"8"}`, 400, ""},
		{"PUT", space(away), `{"limit_bytes":null}`, 400, ""},
		{"PUT", space(away), `{}`, 400, ""},
		{"PUT", space(away), ``, 400, ""},
		{"PUT", space(away), `{"limit_bytes":8,"force":true}`, 400, ""},
		{"PUT", space(away), `{"limit_bytes":8}{}`, 400, ""},
		{"PUT", space(away), `{"limit_bytes":8` + strings.Repeat(" ", 1<<20) + `}`, 400, ""},
		{"PUT", all + "/nonsense", `{"limit_bytes":8}`, 400, ""},
		{"GET", all + "/nonsense", "", 400, ""},
		{"DELETE", all + "/nonsense", "", 400, ""},
		{"GET", space(away), "", 200, quotaJSON(away, "7", "7", "null")},
		{"DELETE", space(owner.space), "", 200, quotaJSON(owner.space, "null", "null", "3")},
		{"DELETE", space(owner.space), "", 200, quotaJSON(owner.space, "null", "null", "3")},
		{"GET", all, "", 200, `{"overrides":{"` + away.String() + `":7},"default_limit_bytes":null}`},
		{"GET", n.URL() + "/admin/usage", "", 200, `{"spaces":[{"space_id":"` + owner.space.String() + `","usage_bytes":3}],"count":1}`},
	}
	for _, tt := range requests {
		status, answer := call(t, tt.method, tt.target, bearer, tt.body)
		if status != tt.status || status == 200 && strings.TrimSpace(answer) != tt.want {
			t.Errorf("%s %s %.40s: %d %s, want %d %s", tt.method, tt.target, tt.body, status, answer, tt.status, tt.want)
		}
	}
	_, before := call(t, "GET", all, bearer, "")
	var wg sync.WaitGroup // who guesses waits
	for _, tt := range requests {
		for _, token := range []string{"", "Bearer let me out"} {
			wg.Go(func() {
				if status, err := statusOf(t.Context(), tt.method, tt.target, token, tt.body); status != 401 {
					t.Errorf("%s %s as a stranger: %d %v", tt.method, tt.target, status, err)
				}
			})
		}
	}
	wg.Wait()
	if _, after := call(t, "GET", all, bearer, ""); after != before {
		t.Errorf("strangers made %s of %s", after, before)
	}
}

// statusOf may be called by any goroutine.
func statusOf(ctx context.Context, method, target, token, body string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func TestAdminQuotaOnTheSocket(t *testing.T) {
	cfg := fromFile(t, "")
	n, _ := run(t, cfg)
	away := newWallet("default").space
	if status, answer := call(t, http.MethodPut, quotaPath(n, away), bearer, `{"limit_bytes":7}`); status != 200 {
		t.Fatal(status, answer)
	}
	// Whoever may open the socket needs no secret.
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", node.Socket(cfg.Storage.Datadir))
	}}}
	defer local.CloseIdleConnections()
	resp, err := local.Get("http://node/admin/quota")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var q node.Quotas
	if err := json.NewDecoder(resp.Body).Decode(&q); err != nil || q.Overrides[away] != 7 || len(q.Overrides) != 1 {
		t.Errorf("%+v, %v", q, err)
	}
}

func TestAdminQuotaWithoutASecret(t *testing.T) {
	cfg, away := fromFile(t, ""), newWallet("default").space
	cfg.AdminSecret = config.Secret{}
	closed, _ := run(t, cfg)
	for _, token := range []string{"", "Bearer ", bearer} {
		if status, _ := call(t, http.MethodPut, quotaPath(closed, away), token, `{"limit_bytes":1}`); status != 503 {
			t.Errorf("without a secret: %d", status)
		}
	}
}
