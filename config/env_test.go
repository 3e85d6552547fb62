package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

func TestEnvValueGrammar(t *testing.T) {
	for raw, want := range envValues() {
		if got := config.EnvValue(raw); got != want {
			t.Errorf("%q reads as %s, want %s", raw, got, want)
		}
	}
}

func envValues() map[string]string {
	return map[string]string{
		"true":                    "a boolean:true",
		"false":                   "a boolean:false",
		"True":                    "a string:True",
		" 8000 ":                  "an integer:8000",
		"-5":                      "an integer:-5",
		"+5":                      "an integer:+5",
		"--5":                     "a string:--5",
		"18446744073709551615":    "an integer:18446744073709551615",
		"1.5":                     "a float:1.5",
		"1e5":                     "a string:1e5",
		"1.5GB":                   "a string:1.5GB",
		"127.0.0.1":               "a string:127.0.0.1",
		"":                        "a string:",
		`"123"`:                   "a string:123",
		`"a \"b\" \\ \n"`:         "a string:a \"b\" \\ \n",
		`"open`:                   `a string:"open`,
		`"a"b`:                    `a string:"a"b`,
		`"\q"`:                    `a string:"\q"`,
		"'c'":                     "a string:c",
		"'é'":                     "a string:é",
		"'cc'":                    "a string:'cc'",
		"[]":                      "[]",
		"[a, b]":                  "[a string:a;a string:b;]",
		"[a,b,]":                  "[a string:a;a string:b;]",
		`[1, true, "x,y", [z]]`:   "[an integer:1;a boolean:true;a string:x,y;[a string:z;];]",
		"[a":                      "a string:[a",
		"[a]]":                    "a string:[a]]",
		"[,]":                     "a string:[,]",
		"[a b]":                   "[a string:a b;]",
		"a,b":                     "a string:a,b",
		"{a=1,b={c=\"d\"}}":       "{a=an integer:1;b={c=a string:d;};}",
		"{}":                      "{}",
		"{a=1,a=2}":               "a string:{a=1,a=2}",
		"{a}":                     "a string:{a}",
		strings.Repeat("[", 1000): "a string:" + strings.Repeat("[", 1000),
	}
}

func FuzzEnvValue(f *testing.F) {
	for raw := range envValues() {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if len(raw) > 4096 {
			return
		}
		if got := config.EnvValue(raw); got == "" {
			t.Errorf("%q reads as nothing", raw)
		}
		for _, name := range []string{"PORT", "STORAGE", "STORAGE_LIMIT", "STORAGE_DATABASE", "P2P_LISTEN", "KEYS_SECRET", "LOG_FORMAT", "CORS"} {
			c, _, err := config.Load(config.LoadOptions{Dir: t.TempDir(), Environ: []string{"TINYCLOUD_" + name + "=" + raw}})
			if err == nil && c.Storage.Database.IsZero() {
				t.Errorf("%s=%q loads without a database", name, raw)
			}
		}
	})
}

// TestEnvNames sets every key by its own name and by nesting.
func TestEnvNames(t *testing.T) {
	for _, tt := range []struct {
		key, raw string
		get      func(config.Config) any
		want     any
	}{
		{"address", "::1", func(c config.Config) any { return c.Address.String() }, "::1"},
		{"port", "0", func(c config.Config) any { return c.Port }, uint16(0)},
		{"cors", "false", func(c config.Config) any { return c.CORS }, false},
		{"log_level", "Debug", func(c config.Config) any { return c.LogLevel }, config.LogDebug},
		{"log.format", "Json", func(c config.Config) any { return c.Log.Format }, config.LogJSON},
		{"log.tracing.traceheader", "X-Trace", func(c config.Config) any { return c.Log.TraceHeader }, "X-Trace"},
		{"spaces.allowlist", "http://h:1/x", func(c config.Config) any { return c.Spaces.Allowlist }, "http://h:1/x"},
		{"trusted_proxies", "10.0.0.7, fd00::/8", func(c config.Config) any { return fmt.Sprint(c.TrustedProxies) }, "[10.0.0.7/32 fd00::/8]"},
		{"ip_header", "false", func(c config.Config) any { return len(c.ProxyHeaders) }, 0},
		{"prometheus.address", "::1", func(c config.Config) any { return c.PrometheusAddress.String() }, "::1"},
		{"prometheus.port", "9000", func(c config.Config) any { return c.PrometheusPort }, uint16(9000)},
		{"keys.type", "Static", func(c config.Config) any { return c.Keys.Type }, "static"},
		{"keys.secret", strings.Repeat("1", 44), func(c config.Config) any { return len(c.Keys.Secret.Bytes()) }, 33},
		{"invocation.max_lifetime_secs", "60", func(c config.Config) any { return c.MaxLifetime.String() }, "1m0s"},
		{"public_spaces.rate_limit_per_minute", "7", func(c config.Config) any { return c.PublicSpaces.RatePerMinute }, uint32(7)},
		{"public_spaces.rate_limit_burst", "8", func(c config.Config) any { return c.PublicSpaces.RateBurst }, uint32(8)},
		{"public_spaces.storage_limit", "1KiB", func(c config.Config) any { return c.PublicSpaces.Limit }, config.ByteSize(1024)},
		{"admin.address", "::1", func(c config.Config) any { return c.Page.Address.String() }, "::1"},
		{"admin.port", "false", func(c config.Config) any { return c.Page.On }, false},
		{"admin.port", "9002", func(c config.Config) any { return c.Page.Port }, uint16(9002)},
		{"admin.secret", `"true, and 16 bytes"`, func(c config.Config) any { return string(c.AdminSecret.Bytes()) }, `"true, and 16 bytes"`},
		{"quota_url", "https://q", func(c config.Config) any { return c.QuotaURL }, "https://q"},
		{"storage.datadir", "/d", func(c config.Config) any { return c.Storage.Blocks.Path }, "/d/blocks"},
		{"storage.database", "sqlite:x", func(c config.Config) any { return c.Storage.Database.Path() }, "x"},
		{"storage.blocks.type", "Local", func(c config.Config) any { return c.Storage.Blocks.Type }, config.BlocksLocal},
		{"storage.blocks.path", "/b", func(c config.Config) any { return c.Storage.Blocks.Path }, "/b"},
		{"storage.staging", "FileSystem", func(c config.Config) any { return c.Storage.Staging }, config.StagingFileSystem},
		{"storage.reserve", "1 GiB", func(c config.Config) any { return c.Storage.Reserve }, config.ByteSize(1 << 30)},
		{"storage.limit", "10", func(c config.Config) any { return c.Storage.Limit }, config.ByteSize(10)},
		{"p2p.listen", "/ip4/1.2.3.4/tcp/1, /ip6/::/udp/2/quic-v1", func(c config.Config) any { return strings.Join(c.P2P.Listen, " ") }, "/ip4/1.2.3.4/tcp/1 /ip6/::/udp/2/quic-v1"},
		{"p2p.announce", "[/dns4/h/tcp/1]", func(c config.Config) any { return strings.Join(c.P2P.Announce, " ") }, "/dns4/h/tcp/1"},
		{"p2p.bootstrap", "/ip4/1.2.3.4/tcp/1/p2p/" + peerA, func(c config.Config) any { return len(c.P2P.Bootstrap) }, 1},
		{"p2p.join_timeout", "1500ms", func(c config.Config) any { return c.P2P.JoinTimeout.String() }, "1.5s"},
		{"p2p.values", "Lazy", func(c config.Config) any { return c.P2P.Values }, config.ValuesLazy},
		{"p2p.mdns", "true", func(c config.Config) any { return c.P2P.MDNS }, true},
		{"p2p.dht", "true", func(c config.Config) any { return c.P2P.DHT }, true},
		{"p2p.isolated", "true", func(c config.Config) any { return c.P2P.Isolated }, true},
	} {
		for _, separator := range []string{"_", "__"} {
			name := "TINYCLOUD_" + strings.ToUpper(strings.ReplaceAll(tt.key, ".", separator))
			t.Run(name, func(t *testing.T) {
				got, warnings, err := load(t, "", name+"="+tt.raw)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, tt.get(got)); diff != "" {
					t.Error(diff)
				}
				for _, w := range warnings {
					if w.Setting != "storage.database" {
						t.Errorf("warning %v", w)
					}
				}
			})
		}
	}
}

func TestEnvTables(t *testing.T) {
	got, _, err := load(t, "", `TINYCLOUD_STORAGE={limit=5,Blocks={type="S3",bucket=bucket-a}}`, "TINYCLOUD_STORAGE_BLOCKS={bucket=bucket-b}",
		"TINYCLOUD_STORAGE_BLOCKS_ENDPOINT=http://s3", `ROCKET_LOG={format="Json"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Blocks{Type: config.BlocksS3, Bucket: "bucket-b", Endpoint: "http://s3"}
	if diff := cmp.Diff(want, got.Storage.Blocks); diff != "" || got.Storage.Limit != 5 || got.Log.Format != config.LogJSON {
		t.Error(diff, got.Storage.Limit, got.Log.Format)
	}
	if _, _, err := load(t, "", "TINYCLOUD_STORAGE=x"); err == nil || !strings.Contains(err.Error(), "TINYCLOUD_STORAGE: storage: expected a table") {
		t.Errorf("error %v", err)
	}
}

func TestEnvDoubleWinsAndSaysSo(t *testing.T) {
	got, warnings, err := load(t, "[global.storage]\ndatadir = 'd'\n", "TINYCLOUD_STORAGE__LIMIT=2", "TINYCLOUD_STORAGE_LIMIT=1")
	if err != nil {
		t.Fatal(err)
	}
	if got.Storage.Limit != 2 || len(warnings) != 1 || warnings[0].String() != "TINYCLOUD_STORAGE_LIMIT: storage.limit: TINYCLOUD_STORAGE__LIMIT says otherwise and wins" {
		t.Errorf("limit %d, warnings %v", got.Storage.Limit, warnings)
	}
}

func TestEnvRocket(t *testing.T) {
	got, warnings, err := load(t, "[global.storage]\ndatadir = 'd'\n", "ROCKET_ADDRESS=10.0.0.1", "ROCKET_LOG_LEVEL=off", "ROCKET_CORS=false", "ROCKET_PORT=1",
		"ROCKET_WORKERS=3", "ROCKET_PROFILE=release", "ROCKET_CONFIG=x", "ROCKET_STORAGE_LIMIT=1", "ROCKET_NONE=1", "rocket_ident=x")
	if err != nil {
		t.Fatal(err)
	}
	if got.Address.String() != "10.0.0.1" || got.LogLevel != config.LogOff || got.CORS || got.Port != 1 || got.Storage.Limit != 0 {
		t.Errorf("%+v", got)
	}
	want := []string{"rocket_ident", "ROCKET_WORKERS", "ROCKET_STORAGE_LIMIT", "ROCKET_PROFILE", "ROCKET_NONE", "ROCKET_CONFIG"}
	if diff := cmp.Diff(want, settingsOf(warnings)); diff != "" {
		t.Error(diff)
	}
}

func TestEnvWarnings(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"TINYCLOUD_PROT", "unknown"},
		{"TINYCLOUD_LOG__LEVEL", "unknown"},
		{"TINYCLOUD_STORAGE_LIMITS", "unknown"},
		{"TINYCLOUD_STORAGE__BLOCKS_PATH", "unknown"},
		{"TINYCLOUD_GLOBAL_PORT", "unknown"},
		{"TINYCLOUD_RELAY_PORT", "known"},
		{"TINYCLOUD_TELEMETRY__ENABLED", "known"},
		{"TINYCLOUD_HOOKS__MAX_TICKET_TTL_SECONDS", "known"},
		{"TINYCLOUD_TEE_MODE", "known"},
		{"TINYCLOUD_SHARE_EMAIL__FROM", "known"},
		{"TINYCLOUD_SHARE_EMAIL_FROM", "known"},
		{"TINYCLOUD_STORAGE_SQL_PATH", "known"},
		{"TINYCLOUD_STORAGE_DUCKDB_PATH", "known"},
		{"TINYCLOUD_DATABASE__MAX_CONNECTIONS", "known"},
		{"TINYCLOUD_LOG_TRACING_ENABLED", "known"},
		{"TINYCLOUD_RETENTION_DAYS", "known"},
		{"TINYCLOUD_DID_RESOLUTION_TIMEOUT_MS", "known"},
		{"TINYCLOUD_QUOTA_URL", ""},
		{"TINYCLOUD_ADMIN_SECRET", ""},
		{"TINYCLOUD_CONFIG_FILE", ""},
		{"TINYCLOUD_", ""},
		{"TINYCLOUDX_PORT", ""},
		{"PORT", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings, err := load(t, "[global.storage]\ndatadir = 'd'\n", tt.name+"=", "no pair")
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if len(warnings) != 0 {
					t.Errorf("warnings %v", warnings)
				}
				return
			}
			if len(warnings) != 1 || warnings[0].Setting != tt.name || !strings.HasPrefix(warnings[0].Message, tt.want) {
				t.Errorf("warnings %v", warnings)
			}
		})
	}
}
