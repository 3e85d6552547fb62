package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

const shipRoot = "../.."

func shipped(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(shipRoot, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// field is what stands behind a name at the beginning of a line.
func field(t *testing.T, text, name string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no line begins with %q", name)
	return ""
}

// parses checks that the program takes a command line, whose first word is its path.
func parses(t *testing.T, words []string) {
	t.Helper()
	if len(words) == 0 || words[0] != "/usr/bin/tinycloud-peer" {
		t.Fatalf("%q", words)
	}
	var c cli
	parser, err := newParser(&c, io.Discard, io.Discard)
	if err == nil {
		_, err = parser.Parse(words[1:])
	}
	if err != nil {
		t.Errorf("%q: %v", words, err)
	}
}

// settingsOf loads a configuration, in which nothing may be unknown.
func settingsOf(t *testing.T, file string, environ ...string) config.Config {
	t.Helper()
	if file == "" {
		file = filepath.Join(t.TempDir(), "empty.toml")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, warnings, err := config.Load(config.LoadOptions{File: file, Environ: environ})
	if err != nil || len(warnings) > 0 {
		t.Errorf("%v %v", err, warnings)
	}
	return c
}

func readYAML(t *testing.T, name string) (m map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(shipped(t, name)), &m); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

// at follows names into nested maps.
func at[T any](t *testing.T, m map[string]any, names ...string) T {
	t.Helper()
	var v any = m
	for _, name := range names {
		inner, _ := v.(map[string]any)
		v = inner[name]
	}
	out, ok := v.(T)
	if !ok {
		t.Fatalf("%s is %v", strings.Join(names, "."), v)
	}
	return out
}

// TestServiceUnit checks the unit of systemd against the program and its settings.
func TestServiceUnit(t *testing.T) {
	t.Parallel()
	unit := shipped(t, "deploy/tinycloud-peer.service")
	words := strings.Fields(field(t, unit, "ExecStart="))
	parses(t, words)
	packaged := at[[]any](t, readYAML(t, ".goreleaser.yaml"), "nfpms")[0].(map[string]any)
	if got := at[string](t, packaged, "bindir") + "/tinycloud-peer"; got != words[0] {
		t.Errorf("the package has the program at %s", got)
	}
	installed := map[string]string{} // where a file goes to
	for _, c := range at[[]any](t, packaged, "contents") {
		installed[at[string](t, c.(map[string]any), "src")] = at[string](t, c.(map[string]any), "dst")
	}
	if got := installed["deploy/tinycloud-peer.toml"]; !slices.Contains(words, got) {
		t.Errorf("the package has the settings at %s", got)
	}
	state := "/var/lib/" + field(t, unit, "StateDirectory=")
	if c := settingsOf(t, filepath.Join(shipRoot, "deploy/tinycloud-peer.toml")); c.Storage.Datadir != state {
		t.Errorf("data are in %s, the unit has %s", c.Storage.Datadir, state)
	}
	user := strings.Fields(field(t, shipped(t, "deploy/tinycloud-peer.sysusers"), "u "))
	if user[0] != field(t, unit, "User=") || user[len(user)-1] != state {
		t.Errorf("user %q", user)
	}
}

// TestPorts checks that what is opened is what is listened on.
func TestPorts(t *testing.T) {
	t.Parallel()
	c := settingsOf(t, "", "STATE_DIRECTORY=/data")
	if c.Port != 8000 || !slices.ContainsFunc(c.P2P.Listen, func(a string) bool { return strings.HasSuffix(a, "/tcp/4001") }) ||
		!slices.ContainsFunc(c.P2P.Listen, func(a string) bool { return strings.HasSuffix(a, "/udp/4001/quic-v1") }) {
		t.Fatalf("listens on %d, %q", c.Port, c.P2P.Listen)
	}
	if got := field(t, shipped(t, "Dockerfile"), "EXPOSE "); got != "8000/tcp 4001/tcp 4001/udp" {
		t.Errorf("the container exposes %s", got)
	}
	if got := field(t, shipped(t, "deploy/ufw/tinycloud-peer"), "ports="); got != "4001/tcp|4001/udp" {
		t.Errorf("the firewall opens %s", got)
	}
}

// TestContainer checks the Dockerfile against the program, its settings and the Go that it needs.
func TestContainer(t *testing.T) {
	t.Parallel()
	file := shipped(t, "Dockerfile")
	var entry, health []string
	for text, words := range map[string]*[]string{field(t, file, "ENTRYPOINT "): &entry, regexp.MustCompile(`(?m)^HEALTHCHECK .* CMD (.*)$`).FindStringSubmatch(file)[1]: &health} {
		if err := json.Unmarshal([]byte(text), words); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	parses(t, entry)
	parses(t, health)
	c := settingsOf(t, "", strings.Fields(field(t, file, "ENV "))...)
	if volume := field(t, file, "VOLUME "); c.Storage.Datadir != volume || c.Address.String() != "0.0.0.0" {
		t.Errorf("data are in %s, the volume is %s; address %s", c.Storage.Datadir, volume, c.Address)
	}
	if needs := field(t, shipped(t, "go.mod"), "go "); !strings.HasPrefix(needs, field(t, file, "ARG GO=")+".") {
		t.Errorf("go.mod needs Go %s", needs)
	}
}

// TestCompose checks that the peers of deploy/compose.yaml believe the proxy, that it finds them, and that no setting is
// unknown.
func TestCompose(t *testing.T) {
	t.Parallel()
	m := readYAML(t, "deploy/compose.yaml")
	proxy := at[string](t, m, "services", "proxy", "networks", "inside", "ipv4_address")
	upstreams := regexp.MustCompile(`(?m)^\s*reverse_proxy (.*) \{$`).FindStringSubmatch(shipped(t, "deploy/Caddyfile"))[1]
	for upstream := range strings.FieldsSeq(upstreams) {
		name, port, _ := strings.Cut(upstream, ":")
		var environ []string
		for key, value := range at[map[string]any](t, m, "services", name, "environment") {
			environ = append(environ, key+"="+value.(string))
		}
		c := settingsOf(t, "", append(environ, "STATE_DIRECTORY=/data")...)
		if trusted := c.TrustedProxies; len(trusted) != 1 || trusted[0].Addr().String() != proxy || port != "8000" || c.Storage.Limit == 0 {
			t.Errorf("%s: trusts %v, port %s, limit %d", upstream, trusted, port, c.Storage.Limit)
		}
		if at[[]any](t, m, "services", name, "volumes")[0] != name+":/data" {
			t.Errorf("%s has no volume of its own", name)
		}
	}
}

// TestReleaseFiles checks that every file that is packed or run exists, that all systems are built, and that the changelog
// begins with this version.
func TestReleaseFiles(t *testing.T) {
	t.Parallel()
	packed := readYAML(t, ".goreleaser.yaml")
	build := at[[]any](t, packed, "builds")[0].(map[string]any)
	if len(at[[]any](t, build, "goos")) != 3 || len(at[[]any](t, build, "goarch")) != 2 {
		t.Errorf("builds for %v and %v", build["goos"], build["goarch"])
	}
	manual := shipped(t, "scripts/manual")
	named := regexp.MustCompile(`(?m)(?:src: |(?:install|remove): |^ +- |\s|=)((?:\./)?(?:bin/manual|deploy|scripts)/[\w.*/-]*[\w*])`)
	found := 0
	for _, name := range []string{".goreleaser.yaml", ".github/workflows/ci.yaml", ".github/workflows/release.yaml", "Makefile", ".ci/run", "scripts/release"} {
		for _, m := range named.FindAllStringSubmatch(shipped(t, name), -1) {
			found++
			if made, ok := strings.CutPrefix(m[1], "bin/manual/"); ok {
				if made != "*" && !strings.Contains(manual, "bin/manual/"+made) {
					t.Errorf("%s: scripts/manual does not write %s", name, m[1])
				}
				continue
			}
			if files, err := filepath.Glob(filepath.Join(shipRoot, m[1])); err != nil || len(files) == 0 {
				t.Errorf("%s: no %s", name, m[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("%d names of files", found)
	}
	for _, name := range []string{".github/workflows/ci.yaml", ".github/workflows/release.yaml"} {
		if jobs := at[map[string]any](t, readYAML(t, name), "jobs"); len(jobs) < 2 {
			t.Errorf("%s: %d jobs", name, len(jobs))
		}
	}
	if got := field(t, shipped(t, "CHANGELOG.md"), "## ["); !strings.HasPrefix(got, release+"] - ") {
		t.Errorf("CHANGELOG.md begins with %s, the version is %s", got, release)
	}
}
