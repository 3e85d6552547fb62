package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

func TestLogLevels(t *testing.T) {
	t.Parallel()
	for level, want := range map[config.LogLevel]string{
		config.LogOff: "", config.LogCritical: "E", config.LogNormal: "EWI", config.LogDebug: "EWID",
	} {
		for _, format := range []config.LogFormat{config.LogText, config.LogJSON} {
			var out bytes.Buffer
			var cfg config.Config
			cfg.LogLevel, cfg.Log.Format = level, format
			log := slog.New(logHandler(&out, cfg))
			log.Error("E")
			log.Warn("W")
			log.Info("I")
			log.Debug("D")
			got := ""
			for line := range strings.Lines(out.String()) {
				if format == config.LogJSON {
					var entry struct{ Msg string }
					if err := json.Unmarshal([]byte(line), &entry); err != nil {
						t.Errorf("%v, %v: %q: %v", level, format, line, err)
					}
					got += entry.Msg
					continue
				}
				_, msg, _ := strings.Cut(strings.TrimSpace(line), "msg=")
				got += msg
			}
			if got != want {
				t.Errorf("%v, %v: logged %q, want %q", level, format, got, want)
			}
		}
	}
}

// TestTraceHeader finds a request's id in its answer, one of its own each time, and in the log of a node at debug.
func TestTraceHeader(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	g.nodes = cluster.New(cluster.Options{Binary: g.binary, Dir: t.TempDir(), Env: []string{"TINYCLOUD_LOG_LEVEL=debug"}})
	p, err := g.nodes.Add(g.ctx)
	g.must(err)
	seen := map[string]bool{}
	for _, path := range []string{"/info", "/healthz", "/nowhere", "/invoke"} {
		a, err := g.owner.Call(g.ctx, p, http.MethodGet, path, "", nil, nil)
		g.must(err)
		id := a.Header.Get("TinyCloud-Trace-Id")
		if len(id) != 32 || seen[id] {
			t.Errorf("%s: id %q", path, id)
		}
		seen[id] = true
	}
	g.must(p.Stop())
	log, err := os.ReadFile(p.LogFile())
	g.must(err)
	for id := range seen {
		if !strings.Contains(string(log), "trace="+id) {
			t.Errorf("request %s is not in the log", id)
		}
	}
}
