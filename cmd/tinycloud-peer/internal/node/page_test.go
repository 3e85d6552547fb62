package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/client"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// ask asks the admin API and decodes its answer.
func ask[T any](t *testing.T, n *node.Node, method, path, body string, want int) (v T) {
	t.Helper()
	status, answer := call(t, method, n.URL()+path, bearer, body)
	if status != want {
		t.Fatalf("%s %s: %d %s, want %d", method, path, status, answer, want)
	}
	if err := json.Unmarshal([]byte(answer), &v); err != nil {
		t.Fatal(err, answer)
	}
	return v
}

func adminPath(space tinycloud.SpaceID) string {
	return "/admin/spaces/" + url.PathEscape(space.String())
}

// signedBy is a text with a wallet's signature.
func signedBy(t *testing.T, w *client.Wallet, text string) string {
	t.Helper()
	b, err := json.Marshal(node.Signed{SIWE: text, Signature: fmt.Sprintf("0x%x", w.PersonalSign(text))})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An owner makes the node a host, and removes it, by what the admin API gives to be signed.
func TestHostingByAdmin(t *testing.T) {
	n, _ := run(t, settings(t))
	owner := client.RandomWallet()
	space, err := owner.Space("default")
	if err != nil {
		t.Fatal(err)
	}
	// Wallets give accounts in lower case.
	lower, err := tinycloud.ParseSpaceID(strings.ReplaceAll(space.String(), owner.Address(), strings.ToLower(owner.Address())))
	if err != nil {
		t.Fatal(err)
	}
	text := ask[node.HostTextView](t, n, http.MethodGet, adminPath(lower)+"/hosting?domain=127.0.0.1:8002&seconds=3600", "", http.StatusOK)
	if text.Space != space || !strings.HasPrefix(text.SIWE, "127.0.0.1:8002 wants you to sign in") || !strings.Contains(text.SIWE, "\nURI: "+text.DID+"\n") || !strings.Contains(text.SIWE, "Expiration Time: ") {
		t.Errorf("%+v", text)
	}
	for _, query := range []string{"?seconds=0", "?seconds=x", "?domain=a%20b"} {
		ask[map[string]string](t, n, http.MethodGet, adminPath(space)+"/hosting"+query, "", http.StatusBadRequest)
	}
	// Another's signature makes no host.
	ask[map[string]string](t, n, http.MethodPost, adminPath(space)+"/hosting", signedBy(t, client.RandomWallet(), text.SIWE), http.StatusForbidden)
	ask[map[string]string](t, n, http.MethodPost, adminPath(space)+"/hosting", `{"siwe":"x","signature":"0x"}`, http.StatusBadRequest)
	done := ask[struct{ Activated []string }](t, n, http.MethodPost, adminPath(space)+"/hosting", signedBy(t, owner, text.SIWE), http.StatusOK)
	if len(done.Activated) != 1 || done.Activated[0] != space.String() {
		t.Errorf("activated %v", done.Activated)
	}
	// That alerts are looked for, which may take long, keeps nobody from hosting.
	n.WhileLooking(func() {
		ask[struct{ Activated []string }](t, n, http.MethodPost, adminPath(space)+"/hosting", signedBy(t, owner, text.SIWE), http.StatusOK)
	})
	removal := adminPath(space) + "/hosts/" + url.PathEscape(text.DID) + "/removal"
	gone := ask[node.Unhosting](t, n, http.MethodGet, removal+"?domain=127.0.0.1:8002", "", http.StatusOK)
	if !strings.HasPrefix(gone.SIWE, "127.0.0.1:8002 wants") {
		t.Errorf("text %q", gone.SIWE)
	}
	ask[struct{ Revoked bool }](t, n, http.MethodPost, removal, signedBy(t, owner, gone.SIWE), http.StatusOK)
	alerts := ask[[]node.AlertView](t, n, http.MethodGet, "/admin/alerts", "", http.StatusOK)
	kinds := map[string]string{}
	for _, a := range alerts {
		kinds[a.Kind] = a.Space
	}
	if kinds["removed"] != space.String() || len(alerts) != 2 { // and that there is no backup
		t.Errorf("alerts %v", alerts)
	}
}

// Spaces come a page at a time, and can be looked for.
func TestSpacesByPages(t *testing.T) {
	n, _ := run(t, settings(t))
	want := map[string]bool{}
	for range 5 {
		space, _ := signedIn(t, n)
		want[space.String()] = true
	}
	got, after := map[string]bool{}, ""
	for pages := 0; ; pages++ {
		page := ask[[]node.SpaceView](t, n, http.MethodGet, "/admin/spaces?brief=1&limit=2&after="+url.QueryEscape(after), "", http.StatusOK)
		for _, v := range page {
			if v.Space.String() <= after || v.StateHash != "" {
				t.Errorf("after %q came %s with the hash %q", after, v.Space, v.StateHash)
			}
			after, got[v.Space.String()] = v.Space.String(), true
		}
		if len(page) < 2 {
			if pages != 2 {
				t.Errorf("the end came on page %d", pages)
			}
			break
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if found := ask[[]node.SpaceView](t, n, http.MethodGet, "/admin/spaces?find="+url.QueryEscape(strings.ToUpper(after)), "", http.StatusOK); len(found) != 1 || found[0].StateHash == "" {
		t.Errorf("found %v", found)
	}
	for _, limit := range []string{"0", "x", "-1"} {
		ask[map[string]string](t, n, http.MethodGet, "/admin/spaces?limit="+limit, "", http.StatusBadRequest)
	}
}

// The end of the log is kept, whatever of it is written.
func TestEvents(t *testing.T) {
	n, _ := runWith(t, settings(t), node.Options{Version: "test", Log: slog.New(slog.DiscardHandler)})
	space, _ := signedIn(t, n)
	var first node.EventPage
	if first = ask[node.EventPage](t, n, http.MethodGet, "/admin/events?limit=2", "", http.StatusOK); len(first.Events) != 2 || first.Before != first.Events[1].N || first.Events[0].N != first.Before+1 {
		t.Fatalf("the newest: %+v", first)
	}
	next := ask[node.EventPage](t, n, http.MethodGet, fmt.Sprintf("/admin/events?limit=1&before=%d", first.Before), "", http.StatusOK)
	if len(next.Events) != 1 || next.Events[0].N != first.Before-1 {
		t.Errorf("earlier: %+v", next)
	}
	of := ask[node.EventPage](t, n, http.MethodGet, "/admin/events?space="+url.QueryEscape(space.String()), "", http.StatusOK)
	if len(of.Events) == 0 || of.Before != 0 {
		t.Errorf("of the Space: %+v", of)
	}
	for _, e := range of.Events {
		if e.Space != space.String() || e.Text == "" || e.At.IsZero() || e.Level != "INFO" {
			t.Errorf("event %+v", e)
		}
	}
	for _, e := range ask[node.EventPage](t, n, http.MethodGet, "/admin/events?level=WARN", "", http.StatusOK).Events {
		if e.Level == "INFO" {
			t.Errorf("event %+v", e)
		}
	}
	for _, query := range []string{"before=0", "before=x", "level=LOUD", "limit=513"} {
		ask[map[string]string](t, n, http.MethodGet, "/admin/events?"+query, "", http.StatusBadRequest)
	}
}

// What changes is told at once, and a stream does not hold the end of the node up.
func TestLive(t *testing.T) {
	n, stop := run(t, settings(t))
	space, invoke := signedIn(t, n)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.URL()+"/admin/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", bearer)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Error(resp.Status, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Scan() // that it is open
	if status, answer := invoke("tinycloud.kv/put", "key", "value"); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	for lines.Scan() && lines.Text() != "event: change" {
	}
	lines.Scan()
	var change node.ChangeView
	if err := json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &change); err != nil || len(change.Spaces) != 1 || change.Spaces[0] != space.String() || change.All {
		t.Errorf("%s, %v", lines.Text(), err)
	}
	began := time.Now()
	stop()
	if spent := time.Since(began); spent > 15*time.Second { // requests that go on are cut off after 20
		t.Errorf("the node took %s to stop", spent)
	}
	for lines.Scan() {
	}
}

func TestHistoryOfMetrics(t *testing.T) {
	n, _ := run(t, settings(t))
	_, invoke := signedIn(t, n)
	if status, answer := invoke("tinycloud.kv/put", "key", "value"); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		h := ask[node.HistoryView](t, n, http.MethodGet, "/admin/history", "", http.StatusOK)
		if len(h.Samples) > 0 {
			if x := h.Samples[0]; x.At.IsZero() || x.Memory == 0 || h.EverySeconds != 10 {
				t.Errorf("%+v", h)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no sample")
		}
		<-time.After(50 * time.Millisecond)
	}
}

// The page has a listener of its own, a link that logs in, and nothing of the public API.
func TestPageListener(t *testing.T) {
	n, _ := run(t, settings(t))
	link := ask[node.LinkView](t, n, http.MethodPost, "/admin/page", "", http.StatusOK)
	at, code, ok := strings.Cut(link.URL, "#code=")
	if !ok || at != n.PageURL() || len(code) != 43 {
		t.Fatal(link.URL, n.PageURL())
	}
	for path, want := range map[string]int{"": 200, "info": 404, "admin/node": 401, "admin/page": 401, "admin/backup": 401, "peer/generate/x": 404, "metrics": 404} {
		if status, answer := call(t, http.MethodGet, n.PageURL()+path, bearer, ""); status != want {
			t.Errorf("%q on the page's listener: %d %.80s", path, status, answer)
		}
	}
	if status, _ := call(t, http.MethodGet, n.URL()+"/", "", ""); status != http.StatusNotFound {
		t.Error("/ on the public API:", status)
	}
	resp, err := http.Post(n.PageURL()+"login", "application/json", strings.NewReader(`{"code":"`+code+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	for path, want := range map[string]int{"admin/node": http.StatusOK, "admin/page": http.StatusNotFound, "admin/backup": http.StatusNotFound} {
		method := http.MethodPost // who is in makes no links
		if want == http.StatusOK {
			method = http.MethodGet
		}
		r, err := http.NewRequestWithContext(t.Context(), method, n.PageURL()+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(resp.Cookies()[0])
		r.Header.Set("TinyCloud-Page", answer.Token)
		got, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got.Body.Close()
		if got.StatusCode != want {
			t.Errorf("%s %s: %d, want %d", method, path, got.StatusCode, want)
		}
	}
}

func TestPageIsOff(t *testing.T) {
	n, _ := run(t, settings(t, "TINYCLOUD_ADMIN_PORT=false"))
	if n.PageURL() != "" {
		t.Error(n.PageURL())
	}
	ask[map[string]string](t, n, http.MethodPost, "/admin/page", "", http.StatusNotFound)
}

// A backup is remembered, and its age told.
func TestBackupIsRemembered(t *testing.T) {
	cfg := settings(t)
	left := filepath.Join(cfg.Storage.Datadir, node.Copies+"left")
	if err := os.MkdirAll(filepath.Join(left, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	n, _ := run(t, cfg)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a verb left is there: %v", err)
	}
	signedIn(t, n)
	name := filepath.Join(cfg.Storage.Datadir, "backed-up")
	kinds := func() (found []string) {
		for _, a := range ask[[]node.AlertView](t, n, http.MethodGet, "/admin/alerts", "", http.StatusOK) {
			found = append(found, a.Kind+" "+a.Level)
		}
		return found
	}
	if got := kinds(); len(got) != 1 || got[0] != "backup info" {
		t.Errorf("without a backup: %v", got)
	}
	backUp := func(dir string) {
		t.Helper()
		if status, answer := local(t, cfg.Storage.Datadir, http.MethodPost, "/admin/backup", `{"dir":"`+dir+`"}`); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	backUp(filepath.Join(cfg.Storage.Datadir, "copy"))
	if v := ask[node.Info](t, n, http.MethodGet, "/admin/node", "", http.StatusOK); v.Backup != nil {
		t.Errorf("a copy within the data directory is a backup of %v", v.Backup)
	}
	backUp(filepath.Join(t.TempDir(), "copy"))
	if v := ask[node.Info](t, n, http.MethodGet, "/admin/node", "", http.StatusOK); v.Backup == nil || time.Since(*v.Backup) > time.Minute {
		t.Errorf("backup %v", v.Backup)
	}
	old := time.Now().Add(-8*24*time.Hour - time.Hour)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(100 * time.Millisecond) {
		if got := kinds(); len(got) == 1 && got[0] == "backup warning" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(kinds())
		}
	}
}

// local asks over the socket of a data directory.
func local(t *testing.T, datadir, method, path, body string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", node.Socket(datadir))
	}}}
	return callBy(t, c, method, "http://node"+path, "", body)
}

// What the node says of its admin API is what docs/admin-api.json says, and the table of docs/operating.md has every path.
func TestOpenAPI(t *testing.T) {
	n, _ := run(t, settings(t))
	status, got := call(t, http.MethodGet, n.URL()+"/admin/openapi.json", bearer, "")
	if status != http.StatusOK {
		t.Fatal(status, got)
	}
	const file = "../../../../docs/admin-api.json"
	if os.Getenv("OPENAPI_WRITE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs: OPENAPI_WRITE=1 go test ./cmd/tinycloud-peer/internal/node -run %s writes it", file, t.Name())
	}
	var doc struct {
		Paths      map[string]map[string]struct{ Summary string }
		Components struct {
			Schemas map[string]struct{ Required []string }
		}
	}
	if err := json.Unmarshal([]byte(got), &doc); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Paths) < 20 || len(doc.Components.Schemas["SpaceView"].Required) < 30 {
		t.Errorf("%d paths, %v", len(doc.Paths), doc.Components.Schemas["SpaceView"])
	}
	for path := range doc.Paths {
		if path = strings.ReplaceAll(path, "{addr}", "{multiaddr}"); !strings.Contains(string(page), path) {
			t.Errorf("docs/operating.md does not tell of %s", path)
		}
	}
	// Each reference leads somewhere.
	for _, part := range strings.Split(got, `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if _, ok := doc.Components.Schemas[name]; !ok {
			t.Errorf("no schema %s", name)
		}
	}
}

// A look for alerts that takes too long tells what it found, and that it did not look at all Spaces.
func TestAlertsOutOfTime(t *testing.T) {
	n, _ := run(t, settings(t))
	signedIn(t, n)
	found, err := n.AlertsOutOfTime()
	if err != nil || len(found) == 0 || found[len(found)-1].Kind != "many" || !strings.Contains(found[len(found)-1].Text, "0 of 1 Spaces") {
		t.Errorf("%v, %v", found, err)
	}
}
