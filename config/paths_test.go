package config_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

const relative = `[global.storage]
datadir = "./data"
database = "sqlite:./other/caps.db"
[global.storage.blocks]
type = "Local"
path = "blocks"
[global.tls]
cert = "cert.pem"
key = "/abs/key.pem"
`

// Paths of a file lead from its directory, wherever the node is started.
func TestPathsOfAFile(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "node", "tinycloud.toml"), relative)
	work := filepath.Join(root, "node", "below")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]config.LoadOptions{
		"found above": {Dir: work},
		"named":       {Dir: root, File: "node/tinycloud.toml"},
		"by variable": {Dir: root, Environ: []string{"TINYCLOUD_CONFIG_FILE=node/tinycloud.toml"}},
	} {
		c, warnings, err := config.Load(o)
		if err != nil || len(warnings) != 0 {
			t.Fatal(name, err, warnings)
		}
		at := func(p string) string { return filepath.Join(root, "node", p) }
		if s := c.Storage; s.Datadir != at("data") || s.Database.Path() != at("other/caps.db") || s.Blocks.Path != at("blocks") || c.TLS.Cert != at("cert.pem") || c.TLS.Key != "/abs/key.pem" {
			t.Errorf("%s: %+v, %+v", name, s, c.TLS)
		}
		if file, err := o.Locate(); err != nil || file != at("tinycloud.toml") {
			t.Errorf("%s: %s, %v", name, file, err)
		}
	}

	// Variables and the command line are of the working directory.
	c, _, err := config.Load(config.LoadOptions{Dir: work, Environ: []string{"TINYCLOUD_STORAGE_BLOCKS_PATH=b"}, Datadir: "d"})
	if err != nil || c.Storage.Blocks.Path != "b" || c.Storage.Datadir != "d" {
		t.Errorf("%+v, %v", c.Storage, err)
	}
}

// What an earlier release wrote to the working directory stays in use.
func TestPathsOfBefore(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "tinycloud.toml"), relative)
	work := filepath.Join(root, "below")
	write(t, filepath.Join(work, "data", "secret"), "")
	write(t, filepath.Join(work, "other", "caps.db"), "")
	write(t, filepath.Join(root, "data", "something.txt"), "no data of a node")
	load := func() (config.Config, []config.Warning) {
		t.Helper()
		c, warnings, err := config.Load(config.LoadOptions{Dir: work})
		if err != nil {
			t.Fatal(err)
		}
		return c, warnings
	}
	c, warnings := load()
	if c.Storage.Datadir != "./data" || c.Storage.Database.Path() != "./other/caps.db" || c.Storage.Blocks.Path != filepath.Join(root, "blocks") {
		t.Errorf("%+v", c.Storage)
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0].String(), "write "+filepath.Join(work, "data")) {
		t.Errorf("%v", warnings)
	}
	write(t, filepath.Join(root, "data", "secret"), "")
	if c, warnings = load(); c.Storage.Datadir != filepath.Join(root, "data") || len(warnings) != 1 {
		t.Errorf("%+v, %v", c.Storage, warnings)
	}
}

// A node that is told nothing has a directory of its own; one that keeps nothing by its settings still does.
func TestDefaultDatadir(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere it has other names")
	}
	secret := "TINYCLOUD_KEYS_SECRET=" + strings.Repeat("A", 43)
	for _, tt := range []struct {
		name, file string
		environ    []string
		want       string
	}{
		{"user", "", []string{"HOME=/home/u"}, "/home/u/.local/share/tinycloud-peer"},
		{"XDG", "", []string{"HOME=/home/u", "XDG_DATA_HOME=/x"}, "/x/tinycloud-peer"},
		{"XDG has to be absolute", "", []string{"HOME=/home/u", "XDG_DATA_HOME=x"}, "/home/u/.local/share/tinycloud-peer"},
		{"systemd", "", []string{"HOME=/home/u", "STATE_DIRECTORY=/var/lib/tinycloud-peer"}, "/var/lib/tinycloud-peer"},
		{"systemd with several", "", []string{"STATE_DIRECTORY=/var/lib/a:/var/lib/b"}, "/var/lib/a"},
		{"systemd and a secret", "", []string{"STATE_DIRECTORY=/var/lib/a", secret}, "/var/lib/a"},
		{"nobody", "", nil, ""},
		{"file", "[global.storage]\ndatadir = \"/d\"\n", []string{"HOME=/home/u", "STATE_DIRECTORY=/var/lib/a"}, "/d"},
		{"none on purpose", "[global.storage]\ndatadir = \"\"\n", []string{"HOME=/home/u"}, ""},
		{"variable", "", []string{"HOME=/home/u", "TINYCLOUD_STORAGE_DATADIR=/d"}, "/d"},
		{"a secret", "", []string{"HOME=/home/u", secret}, ""},
		{"a secret and a database", "", []string{"STATE_DIRECTORY=/var/lib/a", secret, "TINYCLOUD_STORAGE_DATABASE=caps.db"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _, err := load(t, tt.file, tt.environ...)
			if err != nil || c.Storage.Datadir != tt.want {
				t.Errorf("%q, %v; want %q", c.Storage.Datadir, err, tt.want)
			}
			if tt.want != "" && c.Storage.Blocks.Path != tt.want+"/blocks" {
				t.Errorf("blocks in %q", c.Storage.Blocks.Path)
			}
		})
	}
	env := func(pairs map[string]string) func(string) string {
		return func(name string) string { return pairs[name] }
	}
	if got := config.UserDatadir("darwin", env(map[string]string{"HOME": "/Users/u"})); got != "/Users/u/Library/Application Support/tinycloud-peer" {
		t.Error(got)
	}
	if got := config.UserDatadir("windows", env(map[string]string{"LocalAppData": "/appdata", "HOME": "/h"})); got != "/appdata/tinycloud-peer" {
		t.Error(got)
	}
}
