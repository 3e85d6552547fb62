package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

const withDatadir = "[global.storage]\ndatadir = 'd'\n"

func TestTLS(t *testing.T) {
	plain := config.TLS{Plain: true, PlainPort: 80}
	change := func(f func(*config.TLS)) config.TLS {
		out := plain
		f(&out)
		return out
	}
	for _, tt := range []struct {
		name, file string
		environ    []string
		want       config.TLS
		warnings   []string
	}{
		{"none", withDatadir, nil, plain, nil},
		{"names", withDatadir + "[global.tls]\ndomain = ['a.example.com', 'xn--bcher-kva.example']\nca = 'https://127.0.0.1:1/dir'\nplain_port = 0\n", nil, change(func(c *config.TLS) {
			c.Domain, c.CA, c.PlainPort = []string{"a.example.com", "xn--bcher-kva.example"}, "https://127.0.0.1:1/dir", 0
		}), nil},
		{"names of a variable", withDatadir, []string{"TINYCLOUD_TLS_DOMAIN=a.example.com,b.example.com", "TINYCLOUD_TLS_PLAIN_PORT=false"}, change(func(c *config.TLS) {
			c.Domain, c.Plain = []string{"a.example.com", "b.example.com"}, false
		}), nil},
		{"files", withDatadir + "[global.tls]\ncert = 'c'\nkey = 'k'\n", nil, change(func(c *config.TLS) { c.Cert, c.Key = "c", "k" }), nil},
		{"as the reference has it", withDatadir, []string{`ROCKET_TLS={certs="c",key="k"}`}, change(func(c *config.TLS) { c.Cert, c.Key = "c", "k" }), nil},
		{"without TLS", withDatadir + "[global.tls]\nplain_port = 8080\nca = 'https://ca.example.com'\n", nil, change(func(c *config.TLS) {
			c.PlainPort, c.CA = 8080, "https://ca.example.com"
		}), []string{"tls.ca"}},
	} {
		got, warnings, err := load(t, tt.file, tt.environ...)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got.TLS, compare); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.warnings, settingsOf(warnings)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if want := !strings.HasPrefix(tt.name, "without") && tt.name != "none"; got.TLS.On() != want {
			t.Errorf("%s: on: %v", tt.name, !want)
		}
	}
}

// TestTLSErrors finds that each error names the setting. A node that was to speak TLS never starts without.
func TestTLSErrors(t *testing.T) {
	for _, tt := range []struct{ file, env, want string }{
		{"domain = ['*.example.com']", "", "toml:4: tls.domain: \"*.example.com\": no certificate"},
		{"domain = ['192.0.2.1']", "", "tls.domain: \"192.0.2.1\" is an address"},
		{"domain = ['localhost']", "", "tls.domain: \"localhost\" is not a domain name"},
		{"domain = ['a..example']", "", "tls.domain: \"a..example\" is not a domain name"},
		{"domain = ['A.example']", "", "tls.domain: \"A.example\" is not a domain name"},
		{"domain = ['-a.example']", "", "tls.domain: \"-a.example\" is not a domain name"},
		{"domain = ['https://a.example']", "", "is not a domain name"},
		{"domain = ['a.example']\ncert = 'c'\nkey = 'k'", "", "tls.cert: not with tls.domain"},
		{"cert = 'c'", "", "tls.key: required with tls.cert"},
		{"certs = 'c'", "", "tls.key: required with tls.certs"},
		{"key = 'c'", "", "tls.cert: required with tls.key"},
		{"cert = ''", "", "tls.cert: empty path"},
		{"ca = 'nowhere'", "", "tls.ca: \"nowhere\" is not an http"},
		{"plain_port = true", "", "tls.plain_port: expected a port or false"},
		{"plain_port = 70000", "", "tls.plain_port: "},
		{"domain = ['a.example']\nplain_port = 8000", "", "toml:5: tls.plain_port: 8000 is port too"},
		{"domain = ['a.example']", "TINYCLOUD_PORT=80", "TINYCLOUD_PORT: tls.plain_port: 80 is port too"},
		{"domain = ['a.example']", "TINYCLOUD_STORAGE_DATADIR=", "storage.datadir: required with tls.domain"},
		{"mutual = true", "", "tls.mutual: unknown setting"},
		{"", "TINYCLOUD_TLS=x", "tls: expected a table"},
		{"", "TINYCLOUD_TLS_CIPHERS=x", "TINYCLOUD_TLS_CIPHERS: unknown setting"},
		{"", "TINYCLOUD_TLS_CERTS=a", "TINYCLOUD_TLS_CERTS: tls.key: required"},
		{"", `ROCKET_TLS={certs="a"}`, "ROCKET_TLS: tls.key: required"},
	} {
		if _, _, err := load(t, withDatadir+"[global.tls]\n"+tt.file+"\n", tt.env); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q %s: %v, want %s", tt.file, tt.env, err, tt.want)
		}
	}
}
