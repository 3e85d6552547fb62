package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/attack"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// scrape reads the metrics of a node: values by name and labels, and the text.
func (g *group) scrape(p *cluster.Peer) (values map[string]float64, text string) {
	g.Helper()
	values, text, err := p.Metrics(g.ctx)
	g.must(err)
	return values, text
}

// TestMetricsMove has a node do, and suffer, what its metrics count, and reads them as Prometheus does. The
// dashboard asks only for what is there.
func TestMetricsMove(t *testing.T) {
	t.Parallel()
	s := newSiege(t)
	before, _ := s.scrape(s.a)
	s.put(s.a, "large", strings.Repeat("a value that travels as a block. ", 10_000))
	s.converged()
	s.reads("large", strings.Repeat("a value that travels as a block. ", 10_000), s.b)
	s.suffer()
	moved := map[*cluster.Peer][]string{
		s.a: {
			`tinycloud_http_requests_total{route="invoke",status="200"}`, "tinycloud_kv_put_seconds_count",
			`tinycloud_epochs_total{outcome="applied"}`, `tinycloud_epochs_total{outcome="void"}`, `tinycloud_epochs_total{outcome="parked"}`,
			"tinycloud_apply_lag_seconds_count", `tinycloud_sync_bytes_total{direction="in",kind="serve"}`,
			`tinycloud_sync_bytes_total{direction="out",kind="hello"}`, `tinycloud_block_bytes_total{direction="out"}`,
			`tinycloud_gossip_messages_total{outcome="sent"}`, `tinycloud_sync_entries_total{outcome="new"}`,
			`tinycloud_refused_total{layer="circuit"}`, `tinycloud_refused_total{layer="hello"}`, `tinycloud_refused_total{layer="stream"}`,
			`tinycloud_refused_total{layer="gossip"}`, "tinycloud_equivocations_total", "tinycloud_commit_group_jobs_count",
			"tinycloud_stored_bytes", `tinycloud_peers{state="authorised"}`, `tinycloud_peers{state="probation"}`,
		},
		s.b: {
			"tinycloud_kv_get_seconds_count", "tinycloud_catchup_entries_total", `tinycloud_block_bytes_total{direction="in"}`,
			`tinycloud_fetched_values_total{outcome="arrived"}`,
		},
	}
	for p, names := range moved {
		if p == s.b {
			before = nil // it began as this test did
		}
		late := time.Now().Add(15 * time.Second)
		s.await("metrics of "+p.Name+" move", func() bool {
			now, _ := s.scrape(p)
			names = slices.DeleteFunc(names, func(name string) bool { return now[name] > before[name] })
			if len(names) > 0 && time.Now().After(late) {
				t.Fatalf("they stand still: %v", names)
			}
			return len(names) == 0
		})
	}
	now, text := s.scrape(s.a)
	for name, want := range map[string]float64{
		"tinycloud_hosted_spaces": 2, "tinycloud_active_spaces": 1, "tinycloud_sleeping_spaces": 1, "tinycloud_resting_spaces": 0,
		`tinycloud_wants{state="due"}` + "+" + `tinycloud_wants{state="waiting"}`: 1,
	} {
		sum := 0.0
		for part := range strings.SplitSeq(name, "+") {
			if _, ok := now[part]; !ok {
				t.Errorf("no %s", part)
			}
			sum += now[part]
		}
		if sum != want {
			t.Errorf("%s is %v, want %v", name, sum, want)
		}
	}
	s.anonymous(text)
	dashboard(t, text)
}

// suffer has strangers refused and a host lie.
func (s *siege) suffer() {
	s.Helper()
	stranger, id := s.attacker()
	if stranger.Speaks(s.ctx, id, attack.SyncProtocol) {
		s.Error("a stranger may synchronise")
	}
	_, _ = stranger.Hop(s.ctx, s.front, []byte(stranger.ID()))
	if _, err := stranger.Hello(s.ctx, id, attack.Prove(s.owner.Space)); err == nil {
		s.Error("a stranger was authorised")
	}
	s.equivocation()
	x := s.traitor()
	now := time.Now()
	s.tell(x, x.Say(now, s.heads(s.a), s.event("never", "put", attack.Write("never", tinycloud.Sum([]byte("never given"))))))
	s.tell(x, x.Say(now.Add(-time.Hour), s.parents(x), attack.Event{Token: s.invocation("never", "get")}))
	s.must(x.gossip.Say(attack.Batch(x.Say(now.Add(time.Hour), []tinycloud.Hash{x.Last}, attack.Event{Token: s.invocation("never", "get")}))))
	s.must(x.gossip.Say([]byte("garbage")))
}

// anonymous checks that metrics name no Space, peer or key.
func (s *siege) anonymous(text string) {
	s.Helper()
	for name, secret := range s.secrets {
		if strings.Contains(strings.ToLower(text), strings.ToLower(string(secret))) {
			s.Errorf("the metrics tell the %s", name)
		}
	}
	known := []string{"action", "by", "direction", "kind", "layer", "le", "outcome", "request", "route", "state", "status"}
	for _, m := range regexp.MustCompile(`(?m)^tinycloud_\w+\{(.*)\}`).FindAllStringSubmatch(text, -1) {
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[1], -1) {
			if !slices.Contains(known, label[1]) {
				s.Errorf("label %s in %s", label[1], m[0])
			}
		}
	}
}

// dashboard checks that every query of the shipped dashboard names families that a node has.
func dashboard(t *testing.T, text string) {
	t.Helper()
	b, err := os.ReadFile("../../deploy/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	families := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) (\w+)`).FindAllStringSubmatch(text, -1) {
		families[m[1]] = true
		if m[2] == "histogram" {
			families[m[1]+"_bucket"], families[m[1]+"_sum"], families[m[1]+"_count"] = true, true, true
		}
	}
	asked := map[string]bool{}
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			names := regexp.MustCompile(`(?:tinycloud|go|process)_\w+`).FindAllString(target.Expr, -1)
			if len(names) == 0 {
				t.Errorf("%s: no family in %q", p.Title, target.Expr)
			}
			for _, name := range names {
				asked[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")] = true
				if !families[name] {
					t.Errorf("%s: no family %s", p.Title, name)
				}
			}
		}
	}
	for name := range families {
		histogram := strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_count")
		hidden := []string{"tinycloud_authorised_peers", "tinycloud_hook_streams", "tinycloud_hook_streams_lagged_total"} // shown otherwise
		if strings.HasPrefix(name, "tinycloud_") && !histogram && !asked[name] && !slices.Contains(hidden, name) {
			t.Errorf("nothing on the dashboard shows %s", name)
		}
	}
}
