package node_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// TestHooks reads the events of a node over HTTP, also those of its last life, and ends it while the stream
// is open.
func TestHooks(t *testing.T) {
	cfg := settings(t)
	n, stop := run(t, cfg)
	owner, session := captest.RandomWallet(), captest.RandomSession()
	space := owner.Space("default")
	_, did := call(t, http.MethodGet, n.URL()+"/peer/generate/"+url.PathEscape(space.String()), "", "")
	grant := owner.SignDelegation(captest.DelegationOptions{Audience: session.URI(), Caps: captest.Caps{
		space.String() + "/kv": {"tinycloud.kv/put"}, space.String() + "/hooks": {"tinycloud.hooks/subscribe"},
	}})
	for _, header := range []string{owner.SignHost(space, did), grant} {
		if status, answer := call(t, http.MethodPost, n.URL()+"/delegate", header, ""); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	token := func(path, ability string) string {
		return session.Invoke(captest.TokenOptions{
			Caps: captest.Caps{space.String() + "/" + path: {ability}}, Proofs: []tinycloud.Hash{captest.ID(grant)},
		})
	}
	put := func(key string) {
		t.Helper()
		if status, answer := call(t, http.MethodPost, n.URL()+"/invoke", token("kv/"+key, "tinycloud.kv/put"), key); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	open := func(last string) (lines *bufio.Scanner) {
		t.Helper()
		status, answer := call(t, http.MethodPost, n.URL()+"/hooks/tickets", token("hooks/kv", "tinycloud.hooks/subscribe"),
			fmt.Sprintf(`{"subscriptions":[{"space":%q,"service":"kv"}]}`, space))
		var ticket struct{ Ticket string }
		if err := json.Unmarshal([]byte(answer), &ticket); err != nil || status != http.StatusOK {
			t.Fatal(status, answer)
		}
		resp, err := http.Get(n.URL() + "/hooks/events?ticket=" + ticket.Ticket + "&lastEventId=" + last)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return bufio.NewScanner(resp.Body)
	}
	next := func(lines *bufio.Scanner, key string) (id string) {
		t.Helper()
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				id = text
			}
			if strings.HasPrefix(lines.Text(), "data: ") {
				if !strings.Contains(lines.Text(), fmt.Sprintf(`"path":%q`, key)) {
					t.Errorf("want %s: %s", key, lines.Text())
				}
				return id
			}
		}
		t.Fatal("the stream has ended")
		return ""
	}
	lines := open("")
	put("a")
	put("b")
	id := next(lines, "a")
	next(lines, "b")
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the open stream held the node up for %s", took)
	}
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			t.Errorf("the stream goes on: %s", lines.Text())
		}
	}
	n, _ = run(t, cfg)
	lines = open(id)
	next(lines, "b")
	put("c")
	next(lines, "c")
	// An event is counted when it is sent, which its reader may notice first.
	for begin := time.Now(); ; {
		status, metrics := call(t, http.MethodGet, n.MetricsURL(), "", "")
		if status == http.StatusOK && strings.Contains(metrics, "tinycloud_hook_streams 1\n") && strings.Contains(metrics, "tinycloud_hook_events_total 2\n") {
			return
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("metrics: %d %s", status, metrics)
		}
	}
}
