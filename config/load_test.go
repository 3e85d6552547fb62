package config_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

var compare = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

// sample is the secret of the reference's files.
const sample = "Some long piece of entropy which is a secret and more than 32 bytes"

const (
	peerA = "12D3KooWGRUaRTjHAcEmyrNrRAKJpBrZjkBKnTvg2tSKvCmDLyGj"
	peerB = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
)

// load reads file as the tinycloud.toml of an otherwise empty directory.
func load(t *testing.T, file string, environ ...string) (config.Config, []config.Warning, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tinycloud.toml"), file)
	return config.Load(config.LoadOptions{Environ: environ, Dir: dir})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// settingsOf lists what warnings are about.
func settingsOf(warnings []config.Warning) []string {
	var out []string
	for _, w := range warnings {
		out = append(out, w.Setting)
	}
	return out
}

func TestEmptyIsDefault(t *testing.T) {
	got, warnings, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), got, compare); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"storage.database"}, settingsOf(warnings)); diff != "" {
		t.Error(diff)
	}
	if !got.Storage.Database.InMemory() || got.Storage.Blocks.Path != "./data/blocks" {
		t.Errorf("database %v, blocks %q", got.Storage.Database, got.Storage.Blocks.Path)
	}
	if got.MaxLifetime != 300*time.Second || got.Port != 8000 || !got.CORS || got.SecretFile() != "" {
		t.Errorf("%+v", got)
	}
}

// shipped returns what the shipped file should give.
func shipped(t *testing.T) config.Config {
	t.Helper()
	want := config.Default()
	want.Storage.Datadir = "./data"
	want.Storage.Database = database(t, "sqlite:./data/caps.db")
	want.Storage.Blocks.Path = "./data/blocks"
	return want
}

func TestShippedFile(t *testing.T) {
	text := read(t, "../tinycloud.toml")
	uncommented := regexp.MustCompile(`(?m)^( *)# ([a-z_]+ = )`).ReplaceAllString(text, "$1$2")
	if n := strings.Count(text, "\n") - strings.Count(uncommented, "\n"); n != 0 || uncommented == text {
		t.Fatal("nothing to uncomment")
	}
	for name, file := range map[string]string{"as it stands": text, "defaults uncommented": uncommented} {
		t.Run(name, func(t *testing.T) {
			got, warnings, err := load(t, file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(shipped(t), got, compare); diff != "" {
				t.Error(diff)
			}
			if len(warnings) != 0 {
				t.Errorf("warnings: %v", warnings)
			}
			if got, want := got.SecretFile(), "./data/secret"; got != want {
				t.Errorf("secret file %q, want %q", got, want)
			}
		})
	}
}

// TestShippedFileIsComplete finds each setting, which an example of its kind must name, in the shipped file.
func TestShippedFileIsComplete(t *testing.T) {
	text := read(t, "../tinycloud.toml")
	for _, name := range config.SettingNames() {
		if name == "tls.certs" { // the reference's name of tls.cert
			continue
		}
		table, key := "", name
		if i := strings.LastIndexByte(name, '.'); i >= 0 {
			table, key = "."+name[:i], name[i+1:]
		}
		_, after, ok := strings.Cut(text, "\n[global"+table+"]\n")
		body, _, _ := strings.Cut(after, "\n[")
		if !ok || !regexp.MustCompile(`(?m)^[ #]*`+key+` = `).MatchString(body) {
			t.Errorf("%s is not in the shipped tinycloud.toml", name)
		}
	}
}

func TestReferenceFiles(t *testing.T) {
	for _, tt := range []struct {
		version, datadir string
		level            config.LogLevel
		warnings         []string
	}{
		{"1.0.0", "", config.LogDebug, nil},
		{"1.16.0", "./data", config.LogNormal, []string{"telemetry.enabled"}},
	} {
		t.Run(tt.version, func(t *testing.T) {
			got, warnings, err := load(t, read(t, "testdata/reference-"+tt.version+"-tinycloud.toml"))
			if err != nil {
				t.Fatal(err)
			}
			want := config.Default()
			want.LogLevel = tt.level
			want.Keys.Secret = config.NewSecret([]byte(sample))
			want.Storage.Staging = config.StagingFileSystem
			want.Storage.Datadir = tt.datadir
			want.Storage.Database = database(t, "sqlite:./data/caps.db")
			want.Storage.Blocks.Path = "./data/blocks"
			if diff := cmp.Diff(want, got, compare); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.warnings, settingsOf(warnings)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	all := "[default]\nport = 1\n[release]\nport = 2\n[debug]\nport = 99\nnonsense = 1\n[global]\nport = 3\n"
	for _, tt := range []struct {
		name, file string
		environ    []string
		want       uint16
	}{
		{"default", "[default]\nport = 1\n", nil, 1},
		{"release over default, whatever the order", "[release]\nport = 2\n[default]\nport = 1\n", nil, 2},
		{"global over release", all, nil, 3},
		{"debug is ignored", "[debug]\nport = 99\n", nil, 8000},
		{"profiles in any case", "[GLOBAL]\nport = 3\n", nil, 3},
		{"environment over global", all, []string{"TINYCLOUD_PORT=4"}, 4},
		{"environment over default", "[default]\nport = 1\n", []string{"TINYCLOUD_PORT=4"}, 4},
		{"ROCKET last", all, []string{"ROCKET_PORT=5", "TINYCLOUD_PORT=4"}, 5},
		{"prefix in any case", all, []string{"tinycloud_Port=4"}, 4},
		{"capitals over other cases", all, []string{"TINYCLOUD_PORT=4", "tinycloud_port=6"}, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := load(t, tt.file, tt.environ...)
			if err != nil {
				t.Fatal(err)
			}
			if got.Port != tt.want {
				t.Errorf("port = %d, want %d", got.Port, tt.want)
			}
		})
	}
}

func TestTablesMergeAcrossProfiles(t *testing.T) {
	got, _, err := load(t, "[default.storage]\nlimit = 5\ndatadir = 'x'\n[global.storage]\nlimit = 6\n", "TINYCLOUD_STORAGE_STAGING=FileSystem")
	if err != nil {
		t.Fatal(err)
	}
	if s := got.Storage; s.Limit != 6 || s.Datadir != "x" || s.Staging != config.StagingFileSystem {
		t.Errorf("%+v", s)
	}
}

func TestFileSearch(t *testing.T) {
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b", "c")
	write(t, filepath.Join(root, "tinycloud.toml"), "[global]\nport = 1\n")
	write(t, filepath.Join(root, "a", "tinycloud.toml"), "[global]\nport = 2\n")
	write(t, filepath.Join(deep, "tinycloud.toml", "a directory of that name"), "")
	write(t, filepath.Join(deep, "other.toml"), "[global]\nport = 3\n")
	write(t, filepath.Join(deep, "third.toml"), "[global]\nport = 4\n")
	for _, tt := range []struct {
		name, dir, file, env string
		want                 uint16
	}{
		{"own directory", root, "", "", 1},
		{"nearest ancestor", deep, "", "", 2},
		{"variable", deep, "", "other.toml", 3},
		{"variable, absolute", root, "", filepath.Join(deep, "other.toml"), 3},
		{"option over variable", deep, "third.toml", "other.toml", 4},
		{"empty variable", deep, "", "", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := config.Load(config.LoadOptions{
				Dir: tt.dir, File: tt.file, Environ: []string{"TINYCLOUD_CONFIG_FILE=" + tt.env},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got.Port != tt.want {
				t.Errorf("port = %d, want %d", got.Port, tt.want)
			}
		})
	}
	for _, opts := range []config.LoadOptions{
		{Dir: deep, File: "none.toml"},
		{Dir: deep, Environ: []string{"TINYCLOUD_CONFIG_FILE=none.toml"}},
		{Dir: deep, File: "tinycloud.toml"},
	} {
		if _, _, err := config.Load(opts); err == nil {
			t.Errorf("Load(%+v) = nil", opts)
		}
	}
	write(t, filepath.Join(root, "big.toml"), strings.Repeat("#", 128<<10+1))
	if _, _, err := config.Load(config.LoadOptions{Dir: root, File: "big.toml"}); err == nil || !strings.Contains(err.Error(), "131073 bytes") {
		t.Errorf("big file: %v", err)
	}
}

func TestFileErrorsNameKeyAndLine(t *testing.T) {
	for _, tt := range []struct{ name, file, want string }{
		{"unknown key", "[global]\nport = 1\nprot = 2\n", "tinycloud.toml:3: prot: unknown setting"},
		{"unknown nested key", "[global.storage]\n\n  limits = 1\n", "tinycloud.toml:3: storage.limits: unknown setting"},
		{"unknown table", "[global]\n[global.storrage]\nlimit = 1\n", "tinycloud.toml:2: storrage: unknown setting"},
		{"unknown table without header", "[global]\n[global.x.y]\nz = 1\n", "tinycloud.toml:2: x: unknown setting"},
		{"unknown dotted key", "[global]\nstorage.foo = 1\n", "tinycloud.toml:2: storage.foo: unknown setting"},
		{"quoted key with a dot", "[global]\n\"storage.limit\" = 1\n", `tinycloud.toml:2: "storage.limit": unknown setting`},
		{"case of keys", "[global]\nPort = 1\n", "tinycloud.toml:2: Port: unknown setting"},
		{"key outside profile", "cors = true\n", "tinycloud.toml:1: cors: stands outside a profile table"},
		{"unknown profile", "[globl]\nport = 1\n", "tinycloud.toml:1: globl: not a profile"},
		{"profile twice", "[global]\nport = 1\n[Global]\nport = 2\n", "profile given twice"},
		{"profile is not a table", "global = 1\n", "tinycloud.toml:1: global: stands outside"},
		{"table is not a table", "[global]\nstorage = 1\n", "tinycloud.toml:2: storage: expected a table, found an integer"},
		{"syntax", "[global]\nport = \n", "tinycloud.toml:2: "},
		{"duplicate key", "[global]\nport = 1\nport = 2\n", "tinycloud.toml:3: "},
		{"bad value in default profile", "[default]\nport = 70000\n", "tinycloud.toml:2: port: 70000 is not from 0 to 65535"},
		{"bad value in inline table", "[global]\nstorage = {limit = \"x\"}\n", "tinycloud.toml:2: storage.limit: "},
		{"date", "[global]\nport = 2020-01-01\n", "port: expected an integer, found a date"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := load(t, tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want …%s…", err, tt.want)
			}
		})
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, _, err := load(t, "[global]\nport = 'a'\ncors = 1\nfoo = 1\n", "TINYCLOUD_ADDRESS=here")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"foo", "port", "cors", "TINYCLOUD_ADDRESS: address: \"here\" is not an IP address"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	_, _, err = load(t, "[global]\n"+strings.Repeat("a", 10)+" = 1\n"+manyKeys(100))
	if err == nil || strings.Count(err.Error(), "\n") != 19 {
		t.Errorf("errors are not bounded: %v", err)
	}
}

func TestWarningsAreBounded(t *testing.T) {
	_, warnings, err := load(t, "[global.relay]\n"+manyKeys(300))
	if err != nil || len(warnings) != 101 { // and the one about memory
		t.Errorf("%d warnings, %v", len(warnings), err)
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k" + strings.Repeat("x", i) + " = 1\n")
	}
	return b.String()
}

func TestKnownUnservedWarnOnce(t *testing.T) {
	file := `[default.relay]
port = 8081
[global]
workers = 4
[global.relay]
address = "127.0.0.1"
port = 8081
[global.telemetry]
enabled = true
[global.hooks]
max_ticket_ttl_seconds = 5
[global.tee.a.b]
c = 1
[global.retention]
days = 1
[global.share_email]
x = [{a = 1}]
[global.storage.sql]
path = "x"
[global.storage.duckdb]
path = "x"
[global.database]
max_connections = 5
[global.log.tracing]
enabled = true
[global.storage]
datadir = "d"
`
	_, warnings, err := load(t, file)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"relay.port", "database.max_connections", "hooks.max_ticket_ttl_seconds", "log.tracing.enabled", "relay.address",
		"retention.days", "share_email.x", "storage.duckdb.path", "storage.sql.path", "tee.a.b.c", "telemetry.enabled", "workers",
	}
	if diff := cmp.Diff(want, settingsOf(warnings)); diff != "" {
		t.Error(diff)
	}
	if s := warnings[0].String(); !strings.HasSuffix(s, "tinycloud.toml:2: relay.port: known to the reference but not served by this node, ignored") {
		t.Errorf("warning %q", s)
	}
}

// TestProxies reads what the reference knows as ip_header, and what it does not know.
func TestProxies(t *testing.T) {
	both := []string{"Forwarded", "X-Forwarded-For"}
	for _, tt := range []struct {
		file    string
		trusted string
		headers []string
		warns   bool
	}{
		{"", "[]", both, false},
		{`trusted_proxies = ["10.0.0.7", "2001:db8::1/32"]`, "[10.0.0.7/32 2001:db8::/32]", both, false},
		{`ip_header = "X-Real-IP"`, "[127.0.0.0/8 ::1/128]", []string{"X-Real-IP"}, true},
		{"ip_header = false", "[]", nil, false},
		{"ip_header = \"X-Forwarded-For\"\ntrusted_proxies = ['10.0.0.0/8']", "[10.0.0.0/8]", []string{"X-Forwarded-For"}, false},
	} {
		c, warnings, err := load(t, "[global]\n"+tt.file+"\n[global.storage]\ndatadir = 'x'\n")
		if err != nil || fmt.Sprint(c.TrustedProxies) != tt.trusted || !slices.Equal(c.ProxyHeaders, tt.headers) || (len(warnings) > 0) != tt.warns {
			t.Errorf("%s: %v %q, warnings %v, %v", tt.file, c.TrustedProxies, c.ProxyHeaders, warnings, err)
		}
	}
}
