package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

func TestBadValues(t *testing.T) {
	for _, tt := range []struct{ table, line, want string }{
		{"", `address = "localhost"`, `address: "localhost" is not an IP address`},
		{"", `address = "fe80::1%eth0"`, "address: "},
		{"", "address = 1", "address: expected a string, found an integer"},
		{"", "port = -1", "port: -1 is not from 0 to 65535"},
		{"", "port = 65536", "port: 65536 is not"},
		{"", `port = "8000"`, "port: expected an integer, found a string"},
		{"", "port = 8001", "prometheus.port: 8001 is the API's port too"},
		{".prometheus", "port = 8000", "prometheus.port: 8000 is the API's port too"},
		{".prometheus", "port = 1.5", "prometheus.port: expected an integer, found a float"},
		{"", "cors = 1", "cors: expected true or false, found an integer"},
		{"", `cors = "true"`, "cors: expected true or false, found a string"},
		{"", `log_level = "info"`, `log_level: "info" is not one of [off critical normal debug]`},
		{".log", `format = "text"`, `log.format: "text" is not one of [Text Json]`},
		{".log.tracing", `traceheader = "a b"`, `log.tracing.traceheader: "a b" is not a header name`},
		{".log.tracing", `traceheader = ""`, "log.tracing.traceheader: "},
		{".storage", `staging = "memory"`, `storage.staging: "memory" is not one of [Memory FileSystem]`},
		{".storage", `limit = "10 XB"`, `storage.limit: "10 XB" is not a size`},
		{".storage", "limit = -1", `storage.limit: "-1" is not a size`},
		{".storage", "limit = 1.5", "storage.limit: expected a size, found a float"},
		{".storage", `database = "mssql://x"`, `storage.database: unknown scheme "mssql"`},
		{".storage", "database = 123", "storage.database: expected a string"},
		{".storage", `datadir = "a\u0000b"`, "storage.datadir: "},
		{".storage.blocks", `type = "local"`, `storage.blocks.type: "local" is not one of [Local S3]`},
		{".storage.blocks", `path = ""`, "storage.blocks.path: empty path"},
		{".storage.blocks", `bucket = "good-name"`, "storage.blocks.type: required with storage.blocks.bucket"},
		{".storage.blocks", `endpoint = "http://h"`, "storage.blocks.type: required with storage.blocks.endpoint"},
		{".storage.blocks", `type = "S3"`, "storage.blocks.bucket: required with storage.blocks.type S3"},
		{".storage.blocks", "type = 'S3'\nbucket = 'Bad_Name'", `storage.blocks.bucket: "Bad_Name" is not a bucket name`},
		{".storage.blocks", "type = 'S3'\nbucket = 'a..b'", "storage.blocks.bucket: "},
		{".storage.blocks", "type = 'S3'\nbucket = 'ab'", "storage.blocks.bucket: "},
		{".storage.blocks", "type = 'S3'\nbucket = 'abc'\nendpoint = 's3.local:9000'", `storage.blocks.endpoint: "s3.local:9000" is not`},
		{".spaces", `allowlist = "ftp://h"`, `spaces.allowlist: "ftp://h" is not an http or https URL`},
		{".spaces", `allowlist = ""`, "spaces.allowlist: "},
		{".spaces", `allowlist = "http://"`, `spaces.allowlist: "http://" has no host`},
		{".spaces", `allowlist = "http://h:99999"`, "spaces.allowlist: "},
		{".spaces", `allowlist = "http://h?q=hunter2"`, `spaces.allowlist: "http://h?REDACTED" has a query`},
		{".spaces", `allowlist = "ftp://u:hunter2@h"`, `spaces.allowlist: "REDACTED@h" is not`},
		{".spaces", `allowlist = "http://u:hunter2@h:x"`, `spaces.allowlist: "REDACTED@h:x" is not a URL`},
		{"", `trusted_proxies = ["everybody"]`, `trusted_proxies: "everybody" is not an address or a range`},
		{"", `trusted_proxies = ["0.0.0.0/0"]`, `trusted_proxies: "0.0.0.0/0" is not`},
		{"", `trusted_proxies = ["fe80::1%eth0"]`, "trusted_proxies: "},
		{"", `ip_header = true`, "ip_header: expected the name of a header or false"},
		{"", `ip_header = "X Real"`, `ip_header: "X Real" is not a header name`},
		{"", `quota_url = "nowhere"`, "quota_url: "},
		{".keys", `type = "auto"`, `keys.type: "auto" is not served, only static`},
		{".keys", `type = "STATIC"`, "keys.type: "},
		{".keys", `secret = "hunter2"`, "keys.secret: "},
		{".keys", `secret = ""`, "keys.secret: Secret required to be at least 32 bytes, but was 0"},
		{".keys", `secret = "` + strings.Repeat("A", 42) + `"`, "keys.secret: Secret required to be at least 32 bytes, but was 31"},
		{".keys", `secret = "` + strings.Repeat("A", 43) + `="`, "keys.secret: not base64url without padding"},
		{".keys", `secret = "` + strings.Repeat("A", 42) + `B"`, "keys.secret: not base64url without padding"},
		{".keys", `secret = "` + strings.Repeat("A", 43) + `\n"`, "keys.secret: not base64url without padding"},
		{".keys", `secret = "` + strings.Repeat("+", 44) + `"`, "keys.secret: not base64url without padding"},
		{".keys", "secret = 1", "keys.secret: expected a string, found an integer"},
		{".admin", "secret = 'fifteen bytes..'", "admin.secret: 15 bytes, expected 16 or more"},
		{".prometheus", `address = "localhost"`, `prometheus.address: "localhost" is not an IP address`},
		{".admin", `address = "localhost"`, `admin.address: "localhost" is not an IP address`},
		{".admin", "port = true", "admin.port: expected a port or false"},
		{".admin", "port = 8000", "admin.port: 8000 is the API's port too"},
		{".admin", "port = 8001", "admin.port: 8001 is prometheus.port too"},
		{".admin", "secret = 1", "admin.secret: expected a string, found an integer"},
		{".invocation", "max_lifetime_secs = 0", "invocation.max_lifetime_secs: 0 is not from 1"},
		{".invocation", "max_lifetime_secs = 2147483648", "invocation.max_lifetime_secs: "},
		{".public_spaces", "rate_limit_per_minute = 0", "public_spaces.rate_limit_per_minute: "},
		{".public_spaces", "rate_limit_burst = 4294967296", "public_spaces.rate_limit_burst: "},
		{".public_spaces", `storage_limit = ""`, "public_spaces.storage_limit: "},
		{".p2p", `listen = "/ip4/0.0.0.0/tcp/1"`, "p2p.listen: expected a list of strings, found a string"},
		{".p2p", "listen = [1]", "p2p.listen: item 1: expected a string"},
		{".p2p", `listen = ["0.0.0.0:4001"]`, `p2p.listen: "0.0.0.0:4001" is not a multiaddr`},
		{".p2p", `listen = [""]`, "p2p.listen: "},
		{".p2p", `listen = ["/dns4/h/tcp/1"]`, `p2p.listen: "/dns4/h/tcp/1" is not an address to listen on`},
		{".p2p", `listen = ["/ip4/0.0.0.0/udp/1"]`, "p2p.listen: "},
		{".p2p", `listen = ["/ip4/0.0.0.0/tcp/70000"]`, "p2p.listen: "},
		{".p2p", `announce = ["/ip4/1.2.3.4/tcp/1/p2p/` + peerA + `"]`, "p2p.announce: "},
		{".p2p", `bootstrap = ["/ip4/1.2.3.4/tcp/1"]`, "does not end in /p2p/<peer ID>"},
		{".p2p", `bootstrap = ["/p2p/` + peerA + `"]`, "p2p.bootstrap: "},
		{".p2p", `join_timeout = "soon"`, `p2p.join_timeout: "soon" is not a time from 100ms to 1h0m0s`},
		{".p2p", `join_timeout = "2h"`, "p2p.join_timeout: "},
		{".p2p", "join_timeout = 0", "p2p.join_timeout: 0 is not from 1"},
		{".p2p", "mdns = 0", "p2p.mdns: expected true or false"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			_, _, err := load(t, "[global"+tt.table+"]\n"+tt.line+"\n")
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "tinycloud.toml:") {
				t.Errorf("error %v, want tinycloud.toml:N: …%s…", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("shows a secret: %v", err)
			}
		})
	}
}

func TestBadVariables(t *testing.T) {
	for environ, want := range map[string]string{
		"TINYCLOUD_STORAGE_DATADIR=123":    `TINYCLOUD_STORAGE_DATADIR: storage.datadir: expected a string, found an integer (write '"123"' to mean a string)`,
		"TINYCLOUD_CORS=yes":               "TINYCLOUD_CORS: cors: expected true or false, found a string",
		`TINYCLOUD_PORT="1"`:               "TINYCLOUD_PORT: port: expected an integer, found a string",
		"TINYCLOUD_PORT=tcp://10.0.0.1:80": "TINYCLOUD_PORT: port: expected an integer, found a string",
		"TINYCLOUD_KEYS_SECRET=":           "TINYCLOUD_KEYS_SECRET: keys.secret: Secret required to be at least 32 bytes, but was 0",
		"TINYCLOUD_KEYS_SECRET=[hunter2]":  "TINYCLOUD_KEYS_SECRET: keys.secret: expected a string, found a list",
		"TINYCLOUD_KEYS_TYPE=dstack":       `TINYCLOUD_KEYS_TYPE: keys.type: "dstack" is not served`,
		"TINYCLOUD_P2P_LISTEN=a,b":         `TINYCLOUD_P2P_LISTEN: p2p.listen: "a" is not a multiaddr`,
		"ROCKET_LOG_LEVEL=x":               "ROCKET_LOG_LEVEL: log_level: ",
		"tinycloud_cors=1":                 "tinycloud_cors: cors: ",
	} {
		_, _, err := load(t, "", environ)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v, want %s", environ, err, want)
		}
	}
}

func TestSyntaxErrorsShowNoSecret(t *testing.T) {
	for _, file := range []string{
		"[global.keys]\nsecret = hunter2hunter2\n", "[global.keys]\nsecret = \"hunter2\n", "[global.keys]\nsecret = 12hunter2\n",
		"[global.storage]\ndatabase = postgres://u:hunter2@h\n", "[global.keys]\nsecret = \"hunter2\"\nsecret = \"hunter2\"\n",
		"[global.admin]\nSecret = 0xhunter2\n",
	} {
		_, _, err := load(t, file)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "tinycloud.toml:") {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func TestGoodValues(t *testing.T) {
	got, warnings, err := load(t, `[global]
port = 0
log_level = "OFF"
[global.storage]
database = "sqlite::memory:"
limit = "1.5GB"
[global.storage.blocks]
type = "Local"
path = "/b"
[global.prometheus]
port = 0
[global.admin]
secret = ""
[global.p2p]
listen = []
announce = ["/dns4/example.com/tcp/4001"]
bootstrap = ["/ip4/1.2.3.4/tcp/4001/p2p/`+peerA+"/p2p-circuit/p2p/"+peerB+`"]
`)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Port, want.PrometheusPort, want.LogLevel = 0, 0, config.LogOff
	want.Storage.Limit, want.Storage.Blocks.Path = 1_500_000_000, "/b"
	want.P2P.Listen, want.P2P.Announce = nil, []string{"/dns4/example.com/tcp/4001"}
	want.P2P.Bootstrap = []string{"/ip4/1.2.3.4/tcp/4001/p2p/" + peerA + "/p2p-circuit/p2p/" + peerB}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Error(diff)
	}
	if len(warnings) != 0 { // asked for memory, got it
		t.Errorf("warnings %v", warnings)
	}
}

func TestBlocksOfTheOtherTypeAreDropped(t *testing.T) {
	s3 := "[global.storage]\ndatadir = 'd'\n[global.storage.blocks]\ntype = 'S3'\nbucket = 'abc'\nendpoint = 'http://h'\n"
	got, warnings, err := load(t, s3, "TINYCLOUD_STORAGE_BLOCKS_TYPE=Local")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Blocks{Type: config.BlocksLocal, Path: "d/blocks"}, got.Storage.Blocks); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"storage.blocks.bucket", "storage.blocks.endpoint"}, settingsOf(warnings)); diff != "" {
		t.Error(diff)
	}
	got, warnings, err = load(t, s3, "TINYCLOUD_STORAGE_BLOCKS_PATH=/b")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Blocks{Type: config.BlocksS3, Bucket: "abc", Endpoint: "http://h"}, got.Storage.Blocks); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"storage.blocks.path"}, settingsOf(warnings)); diff != "" {
		t.Error(diff)
	}
}

func TestBlocksDir(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"", "data/blocks"},
		{"[global.storage]\ndatadir = '/d'\n", "/d/blocks"},
		{"[global.storage.blocks]\ntype = 'Local'\npath = '/b'\n", "/b"},
		{"[global.storage]\ndatadir = '/d'\n[global.storage.blocks]\ntype = 'S3'\nbucket = 'abc'\n", "/d/s3/abc"},
		{"[global.storage.blocks]\ntype = 'S3'\nbucket = 'abc'\n", "data/s3/abc"},
	} {
		c, _, err := load(t, tt.file)
		if err != nil {
			t.Fatal(err)
		}
		if got := filepath.Clean(c.BlocksDir()); got != tt.want {
			t.Errorf("%q: BlocksDir() = %q, want %q", tt.file, got, tt.want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, path := range []string{"../tinycloud.toml", "testdata/reference-1.0.0-tinycloud.toml", "testdata/reference-1.16.0-tinycloud.toml"} {
		text := readSeed(f, path)
		if len(text) < 500 {
			f.Fatalf("%s: seed of %d bytes", path, len(text))
		}
		f.Add(text)
	}
	f.Add("[global]\na.b.c = [[1], {x = 2020-01-01T00:00:00Z}]\n[[global.x]]\n")
	f.Add("[default.storage.blocks]\ntype = 'S3'\nbucket = 'abc'\n[release]\nport = 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, _, err := config.LoadText(text)
		if err != nil {
			if err.Error() == "" {
				t.Error("empty error")
			}
			return
		}
		again, err := config.ParseDatabase(c.Storage.Database.DSN())
		if err != nil || !again.Equal(c.Storage.Database) {
			t.Errorf("DSN %q reads back as %v, %v", c.Storage.Database.DSN(), again, err)
		}
		if _, ok := map[config.BlocksType]bool{config.BlocksLocal: true, config.BlocksS3: true}[c.Storage.Blocks.Type]; !ok || !c.Address.IsValid() {
			t.Errorf("accepts %+v", c)
		}
	})
}
