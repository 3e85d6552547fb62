package config

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// program names our directories among those of other programs.
const program = "tinycloud-peer"

// Locate returns the file that [Load] reads, "" for none. It need not exist if it is named.
func (o LoadOptions) Locate() (string, error) {
	dir, err := filepath.Abs(cmp.Or(o.Dir, "."))
	if err != nil {
		return "", fmt.Errorf("working directory: %w", err)
	}
	path := cmp.Or(o.File, splitEnviron(o.Environ).configFile)
	switch {
	case path == "":
		return findFile(dir)
	case !filepath.IsAbs(path):
		path = filepath.Join(dir, path)
	}
	return path, nil
}

// A pathSetting is a setting that names something on this machine's disk.
type pathSetting struct {
	name  string
	field *string
	is    func(string) bool // whether it is there
}

func pathSettings(c *Config) []pathSetting {
	return []pathSetting{
		{"storage.datadir", &c.Storage.Datadir, isDatadir},
		{"storage.database", &c.Storage.Database.path, exists},
		{"storage.blocks.path", &c.Storage.Blocks.Path, exists},
		{"tls.cert", &c.TLS.Cert, exists},
		{"tls.certs", &c.TLS.Cert, exists},
		{"tls.key", &c.TLS.Key, exists},
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// isDatadir tells a directory that a node wrote to from one that has the name.
func isDatadir(path string) bool {
	return exists(filepath.Join(path, "secret")) || exists(filepath.Join(path, "caps.db"))
}

// resolvePaths has relative paths of a file in dir begin there. Before they began in the working directory: what is found
// there alone stays in use. Where both directories are one, paths keep their spelling.
func (l *loader) resolvePaths(c *Config, dir, work string) {
	if dir == work {
		return
	}
	for _, p := range pathSettings(c) {
		e, ok := l.entries[p.name]
		if !ok || e.from.doc == nil || *p.field == "" || filepath.IsAbs(*p.field) {
			continue
		}
		there, here := filepath.Join(dir, *p.field), filepath.Join(work, *p.field)
		if !p.is(there) && p.is(here) {
			l.warn(p.name, e.from, fmt.Sprintf("taken from the working directory, where it is: a relative path is relative to the file, and there %s is not; write %s", there, here))
			continue
		}
		*p.field = there
	}
}

// defaultDatadir is where a node without storage.datadir keeps its data: what systemd gives it (StateDirectory), or a
// directory of its user. Only a node that would have no place for its secret, or none for its data under systemd, gets one:
// what is told its secret and no directory keeps nothing, as it always did.
func (l *loader) defaultDatadir(c *Config, environ []string) {
	if _, set := l.entries["storage.datadir"]; set {
		return
	}
	state := variableOf(environ, "STATE_DIRECTORY")
	if state, _, _ = strings.Cut(state, ":"); filepath.IsAbs(state) && (c.Keys.Secret.IsZero() || c.Storage.Database.IsZero()) {
		c.Storage.Datadir = state
		return
	}
	if c.Keys.Secret.IsZero() {
		c.Storage.Datadir = userDatadir(runtime.GOOS, func(name string) string { return variableOf(environ, name) })
	}
}

// userDatadir is the directory of this program among the data of a user, "" when there is none.
func userDatadir(system string, getenv func(string) string) string {
	root, home := getenv("XDG_DATA_HOME"), getenv("HOME")
	switch {
	case filepath.IsAbs(root):
	case system == "windows":
		root = getenv("LocalAppData")
	case home == "":
		return ""
	case system == "darwin":
		root = filepath.Join(home, "Library", "Application Support")
	default:
		root = filepath.Join(home, ".local", "share")
	}
	if !filepath.IsAbs(root) {
		return ""
	}
	return filepath.Join(root, program)
}

func variableOf(environ []string, name string) (value string) {
	for _, pair := range environ {
		if n, v, ok := strings.Cut(pair, "="); ok && n == name {
			value = v
		}
	}
	return value
}
