package node_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// TestAcceptedRequestsAreFinished stops a node while the body of a put is on its way.
func TestAcceptedRequestsAreFinished(t *testing.T) {
	cfg := settings(t)
	n, stop := run(t, cfg)
	owner, session := captest.RandomWallet(), captest.RandomSession()
	space := owner.Space("default")
	_, did := call(t, http.MethodGet, n.URL()+"/peer/generate/"+url.PathEscape(space.String()), "", "")
	grant := owner.SignDelegation(captest.DelegationOptions{Audience: session.URI(), Caps: captest.Caps{
		space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"},
	}})
	for _, header := range []string{owner.SignHost(space, did), grant} {
		if status, answer := call(t, http.MethodPost, n.URL()+"/delegate", header, ""); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	token := func(ability string) string {
		return session.Invoke(captest.TokenOptions{
			Caps: captest.Caps{space.String() + "/kv/slow": {ability}}, Proofs: []tinycloud.Hash{captest.ID(grant)},
		})
	}
	body, feed := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.URL()+"/invoke", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", token("tinycloud.kv/put"))
	r.Header.Set("Expect", "100-continue") // the body is asked for once the request is accepted
	answered := make(chan string, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		answered <- resp.Status
	}()
	if _, err := io.WriteString(feed, "first half, "); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	// Once it refuses new connections it is stopping.
	for {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(n.URL() + "/healthz")
		if err != nil {
			break
		}
		resp.Body.Close()
	}
	if _, err := io.WriteString(feed, "second half"); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if got := <-answered; got != "200 OK" {
		t.Error(got)
	}
	<-stopped
	again, _ := run(t, cfg)
	if status, got := call(t, http.MethodPost, again.URL()+"/invoke", token("tinycloud.kv/get"), ""); status != http.StatusOK || got != "first half, second half" {
		t.Error(status, got)
	}
}

func TestMetrics(t *testing.T) {
	n, _ := run(t, settings(t))
	signedIn(t, n)
	status, text := call(t, http.MethodGet, n.MetricsURL(), "", "")
	if status != http.StatusOK {
		t.Fatal(status, text)
	}
	for _, line := range []string{
		`tinycloud_http_requests_total{route="delegate",status="200"} 2`, "tinycloud_hosted_spaces 1", "tinycloud_active_spaces 0",
		"tinycloud_authorised_peers 0", "go_goroutines ",
		// What docs/operating.md, "Metrics", lists is there before it happened.
		"# TYPE tinycloud_kv_put_seconds histogram", "# TYPE tinycloud_kv_get_seconds histogram", `tinycloud_epochs_total{outcome="applied"} 2`,
		`tinycloud_epochs_total{outcome="void"} 0`, `tinycloud_epochs_total{outcome="parked"} 0`, "tinycloud_apply_lag_seconds_count 0",
		"tinycloud_catchup_entries_total 0", `tinycloud_wants{state="due"} 0`, `tinycloud_wants{state="waiting"} 0`,
		`tinycloud_block_bytes_total{direction="in"} 0`, `tinycloud_block_bytes_total{direction="out"} 0`, `tinycloud_peers{state="authorised"} 0`,
		`tinycloud_peers{state="probation"} 0`, `tinycloud_refused_total{layer="hello"} 0`, `tinycloud_refused_total{layer="circuit"} 0`,
		"tinycloud_equivocations_total 0", "tinycloud_sleeping_spaces 1", "tinycloud_paired_nodes 0", `tinycloud_refused_total{layer="pair"} 0`, "tinycloud_commit_group_jobs_count ",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q", line)
		}
	}
	if strings.Contains(text, "pkh") || strings.Contains(text, "did:") {
		t.Error("a Space or its owner is named")
	}
}
