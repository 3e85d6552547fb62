package node_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(servers.Main(m),
		// Workers of libraries that live as long as the process.
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
	)
}

// settings are those of a node on free ports with its data in a directory of the test.
func settings(t *testing.T, variables ...string) config.Config {
	t.Helper()
	cfg, _, err := config.Load(config.LoadOptions{Dir: t.TempDir(), Environ: append([]string{
		"TINYCLOUD_ADDRESS=127.0.0.1", "TINYCLOUD_PORT=0", "TINYCLOUD_PROMETHEUS_PORT=0", "TINYCLOUD_ADMIN_PORT=0",
		"TINYCLOUD_P2P_LISTEN=/ip4/127.0.0.1/tcp/0", "TINYCLOUD_STORAGE_DATADIR=" + filepath.Join(t.TempDir(), "data"),
		"TINYCLOUD_ADMIN_SECRET=let me in, please",
	}, variables...)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// run runs a node until the result is called, which waits for its end.
func run(t *testing.T, cfg config.Config) (n *node.Node, stop func()) {
	t.Helper()
	return runWith(t, cfg, node.Options{Version: "test", Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

func runWith(t *testing.T, cfg config.Config, o node.Options) (n *node.Node, stop func()) {
	t.Helper()
	n, err := node.New(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error("run:", err)
		}
	}
	t.Cleanup(stop)
	return n, stop
}

// call sends a request and returns status and body.
func call(t *testing.T, method, target, token, body string) (int, string) {
	t.Helper()
	return callBy(t, http.DefaultClient, method, target, token, body)
}

func callBy(t *testing.T, c *http.Client, method, target, token, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// signedIn hosts a Space at a node and returns a function that invokes there.
func signedIn(t *testing.T, n *node.Node) (space tinycloud.SpaceID, invoke func(ability, key, body string) (int, string)) {
	t.Helper()
	owner, session := captest.RandomWallet(), captest.RandomSession()
	space = owner.Space("default")
	status, did := call(t, http.MethodGet, n.URL()+"/peer/generate/"+url.PathEscape(space.String()), "", "")
	if status != http.StatusOK {
		t.Fatal(status, did)
	}
	grant := owner.SignDelegation(captest.DelegationOptions{Audience: session.URI(), Caps: captest.Caps{
		space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"},
	}})
	for _, header := range []string{owner.SignHost(space, did), grant} {
		if status, answer := call(t, http.MethodPost, n.URL()+"/delegate", header, ""); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	return space, func(ability, key, body string) (int, string) {
		return call(t, http.MethodPost, n.URL()+"/invoke", session.Invoke(captest.TokenOptions{
			Caps:   captest.Caps{space.String() + "/kv/" + key: {ability}},
			Proofs: []tinycloud.Hash{captest.ID(grant)},
		}), body)
	}
}

const bearer = "Bearer let me in, please"

func TestRoundTrip(t *testing.T) {
	cfg := settings(t)
	n, stop := run(t, cfg)
	space, invoke := signedIn(t, n)
	large := strings.Repeat("0123456789abcdef", 200_000) // 3.2 MB: a file of several chunks
	for key, value := range map[string]string{"small": "value", "large": large, "empty": ""} {
		if status, answer := invoke("tinycloud.kv/put", key, value); status != http.StatusOK {
			t.Fatal(key, status, answer)
		}
	}
	check := func(invoke func(ability, key, body string) (int, string)) {
		t.Helper()
		for key, value := range map[string]string{"small": "value", "large": large, "empty": ""} {
			if status, got := invoke("tinycloud.kv/get", key, ""); status != http.StatusOK || got != value {
				t.Errorf("%s: status %d, %d bytes, want %d", key, status, len(got), len(value))
			}
		}
	}
	check(invoke)
	before := view(t, n, space)
	if before.State != "hosted" || before.Keys != 3 || before.Void != 0 || before.Bytes != int64(len(large)+5) ||
		len(before.Hosts) != 1 || !before.Hosts[0].Self || before.Hosts[0].DID != before.DID || len(before.Heads) != 1 {
		t.Errorf("view %+v", before)
	}
	stop()
	n, _ = run(t, cfg)
	after := view(t, n, space)
	if after.StateHash != before.StateHash || after.DID != before.DID || after.Epochs != before.Epochs {
		t.Errorf("after a restart %+v, before %+v", after, before)
	}
}

func view(t *testing.T, n *node.Node, space tinycloud.SpaceID) (v node.SpaceView) {
	t.Helper()
	status, answer := call(t, http.MethodGet, n.URL()+"/admin/spaces/"+url.PathEscape(space.String()), bearer, "")
	if status != http.StatusOK {
		t.Fatal(status, answer)
	}
	if err := json.Unmarshal([]byte(answer), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAdminNeedsItsSecret(t *testing.T) {
	n, _ := run(t, settings(t))
	for _, tt := range []struct {
		token string
		want  int
	}{{bearer, 200}, {"", 401}, {"Bearer ", 401}, {"Bearer let me in, pleas", 401}, {"let me in, please", 401}, {"Bearer let me in, please ", 200}} {
		if got, answer := call(t, http.MethodGet, n.URL()+"/admin/node", tt.token, ""); got != tt.want {
			t.Errorf("%q: %d %s, want %d", tt.token, got, answer, tt.want)
		}
	}
	// Whoever guesses waits, and so does the operator at the same address.
	for range 12 {
		call(t, http.MethodGet, n.URL()+"/admin/node", "Bearer a guess of a secret", "")
	}
	began := time.Now()
	if got, answer := call(t, http.MethodGet, n.URL()+"/admin/node", bearer, ""); got != http.StatusOK {
		t.Errorf("the right secret after 12 wrong ones: %d %s", got, answer)
	}
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("after 12 wrong secrets the next is judged within %s", took)
	}
	cfg := settings(t)
	cfg.AdminSecret = config.Secret{}
	closed, _ := run(t, cfg)
	for _, token := range []string{"", "Bearer "} {
		if got, _ := call(t, http.MethodGet, closed.URL()+"/admin/node", token, ""); got != http.StatusServiceUnavailable {
			t.Errorf("without a secret, token %q: %d", token, got)
		}
	}
}

// members returns the names of a JSON object's members and fails on a null array.
func members(t *testing.T, text string) (names []string, object map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err, text)
	}
	for name := range object {
		names = append(names, name)
	}
	return names, object
}

func TestAdminFields(t *testing.T) {
	n, _ := run(t, settings(t))
	space, _ := signedIn(t, n)
	sorted := cmp.Transformer("sort", func(in []string) map[string]bool {
		out := map[string]bool{}
		for _, s := range in {
			out[s] = true
		}
		return out
	})
	path := n.URL() + "/admin/spaces/" + url.PathEscape(space.String())
	_, answer := call(t, http.MethodGet, path, bearer, "")
	names, object := members(t, answer)
	want := strings.Fields("space did peerId addrs state opens hosts heads epochs void parked pending events keys wants policy bytes history paused rules stateHash conflicts differing joins expires catchup networks databases activity limit overLimit standing written")
	if diff := cmp.Diff(want, names, sorted); diff != "" {
		t.Error(diff)
	}
	if joins, ok := object["joins"].([]any); !ok || len(joins) != 0 {
		t.Errorf("joins %v", object["joins"])
	}
	host, _ := json.Marshal(object["hosts"].([]any)[0])
	names, _ = members(t, string(host))
	if diff := cmp.Diff(strings.Fields("did peerId self connected synced lastSeen forked forks skewMs rules older services behind syncedAt path addr rttMs alias node"), names, sorted); diff != "" {
		t.Error(diff)
	}
	_, answer = call(t, http.MethodGet, n.URL()+"/admin/node", bearer, "")
	names, _ = members(t, answer)
	if diff := cmp.Diff(strings.Fields("nodeId peerId addrs version url started trouble reachability connections spaces replicates shards backup sampleSeconds"), names, sorted); diff != "" {
		t.Error(diff)
	}
	if _, answer = call(t, http.MethodGet, n.URL()+"/admin/spaces", bearer, ""); !strings.HasPrefix(answer, `[{"space":"`+space.String()) {
		t.Errorf("spaces %s", answer)
	}
}

func TestJoinRefusals(t *testing.T) {
	n, _ := run(t, settings(t))
	space, _ := signedIn(t, n)
	other := captest.RandomWallet().Space("elsewhere")
	path := func(s tinycloud.SpaceID) string {
		return n.URL() + "/admin/spaces/" + url.PathEscape(s.String()) + "/join"
	}
	addr := view(t, n, space).Addrs[0]
	cut := strings.LastIndex(addr, "/")
	good := addr[:cut] + "/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
	body := func(addrs ...string) string {
		b, err := json.Marshal(node.JoinRequest{Addrs: addrs})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, tt := range []struct {
		name, target, body string
		want               int
	}{
		{"no address", path(space), body(), 400},
		{"no Space address", path(space), body("/ip4/127.0.0.1/tcp/1"), 400},
		{"this node", path(space), body(addr), 400},
		{"no JSON", path(space), "[", 400},
		{"unknown member", path(space), `{"addrs":[],"force":true}`, 400},
		{"no Space id", n.URL() + "/admin/spaces/nonsense/join", body(good), 400},
		{"not hosted", path(other), body(good), 409},
		{"accepted", path(space), body(good), 202},
		{"and again", path(space), body(good), 202},
	} {
		got, answer := call(t, http.MethodPost, tt.target, bearer, tt.body)
		if got != tt.want {
			t.Errorf("%s: %d %s, want %d", tt.name, got, answer, tt.want)
		}
		if got == http.StatusConflict {
			var h node.Hosting
			if err := json.Unmarshal([]byte(answer), &h); err != nil || !strings.Contains(h.SIWE, "\nURI: "+h.DID+"\n") ||
				!strings.Contains(h.SIWE, other.String()+"/space") {
				t.Errorf("conflict %s, %v", answer, err)
			}
		}
	}
	if v := view(t, n, space); len(v.Joins) != 1 || v.Joins[0].Addr != good {
		t.Errorf("joins %+v", v.Joins)
	}
	if got, _ := call(t, http.MethodGet, n.URL()+"/admin/spaces/"+url.PathEscape(other.String()), bearer, ""); got != 404 {
		t.Errorf("unknown Space: %d", got)
	}
}

func TestSocket(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 120), "data")
	short, err := os.MkdirTemp("", "tc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	for name, dir := range map[string]string{"short path": short, "long path": long} {
		t.Run(name, func(t *testing.T) {
			cfg := settings(t, "TINYCLOUD_STORAGE_DATADIR="+dir)
			_, stop := run(t, cfg)
			path := node.Socket(dir)
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
				t.Fatalf("%s: %v, %v", path, info, err)
			}
			if len(path) > 104 {
				t.Errorf("path of %d bytes", len(path))
			}
			_, err = node.New(t.Context(), cfg, node.Options{})
			if err == nil || !strings.Contains(err.Error(), "storage.database") {
				t.Errorf("a second node: %v", err)
			}
			stop()
			if _, err := os.Stat(path); err == nil {
				t.Error("the socket is left behind")
			}
		})
	}
}

func TestErrorsNameTheSetting(t *testing.T) {
	taken, _ := run(t, settings(t))
	u, err := url.Parse(taken.URL())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for variable, want := range map[string]string{
		"TINYCLOUD_PORT=" + u.Port():                           "port",
		"TINYCLOUD_PROMETHEUS_PORT=" + u.Port():                "prometheus.port",
		"TINYCLOUD_P2P_LISTEN=/ip4/127.0.0.1/tcp/" + u.Port():  "p2p.listen",
		"TINYCLOUD_STORAGE_BLOCKS_PATH=" + file:                "storage.blocks.path",
		"TINYCLOUD_STORAGE_DATABASE=" + file + "/caps.db":      "storage.database",
		"TINYCLOUD_STORAGE_DATABASE=mysql://a:b@127.0.0.1:1/d": "storage.database",
	} {
		_, err := node.New(t.Context(), settings(t, variable), node.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", variable, err)
		}
	}
}
