package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// LoadOptions say where to look. The zero value reads tinycloud.toml of the working directory and no variables.
type LoadOptions struct {
	// Environ are NAME=value pairs as of os.Environ.
	Environ []string
	// Dir is where tinycloud.toml is looked for, then in its ancestors, nearest first. "" is the working directory; another
	// one stands for it.
	Dir string
	// File is the file to read, relative to Dir; it must exist. It goes before TINYCLOUD_CONFIG_FILE, which goes
	// before the search.
	File string
	// Datadir is storage.datadir if it is not "", before file and variables.
	Datadir string
}

// Load reads, merges and checks all settings. The error names every wrong setting, its file and line or its
// variable, and its value unless that may be secret. The warnings are in order of source.
// Both are bounded in number.
func Load(opts LoadOptions) (Config, []Warning, error) {
	l, path, err := collect(opts)
	if err != nil {
		return Config{}, nil, err
	}
	work, err := filepath.Abs(cmp.Or(opts.Dir, "."))
	if err != nil {
		return Config{}, nil, fmt.Errorf("working directory: %w", err)
	}
	c := l.build(func(c *Config) {
		if path != "" {
			l.resolvePaths(c, filepath.Dir(path), work)
		}
		l.defaultDatadir(c, opts.Environ)
	})
	if err := errors.Join(l.errs...); err != nil {
		return Config{}, l.warnings, err
	}
	return c, l.warnings, nil
}

// Sets reports whether a setting is given, rather than at its default.
func (o LoadOptions) Sets(name string) (bool, error) {
	l, _, err := collect(o)
	if err != nil {
		return false, err
	}
	_, ok := l.entries[name]
	return ok, nil
}

// collect reads all sources; path is the file, "" for none.
func collect(opts LoadOptions) (l *loader, path string, err error) {
	l, env := newLoader(), splitEnviron(opts.Environ)
	if path, err = opts.Locate(); err != nil {
		return nil, "", err
	}
	if path != "" {
		doc, err := readDocument(path)
		if err != nil {
			return nil, "", err
		}
		l.addDocument(doc)
	}
	l.addTinycloud(env.tinycloud)
	l.addRocket(env.rocket)
	if opts.Datadir != "" {
		l.add([]string{"storage", "datadir"}, value{kind: kindString, text: opts.Datadir}, origin{env: "--datadir"})
	}
	return l, path, nil
}

// Check says what is wrong with the text of a configuration file of a name.
func Check(name, text string) error {
	doc, err := parseDocument(name, text)
	if err != nil {
		return err
	}
	l := newLoader()
	l.addDocument(doc)
	l.build(func(*Config) {})
	return errors.Join(l.errs...)
}

// origin is where a value stands: a variable, or a key of the file.
type origin struct {
	env string
	doc *document
	key []string
}

func (o origin) String() string {
	if o.doc == nil {
		return o.env
	}
	return o.doc.where(o.key)
}

type entry struct {
	value value
	from  origin
}

// loader collects the value of each key, a later source over an earlier.
type loader struct {
	settings map[string]setting
	tables   map[string]bool
	entries  map[string]entry
	warned   map[string]bool
	warnings []Warning
	errs     []error
}

func newLoader() *loader {
	l := &loader{
		settings: map[string]setting{},
		tables:   map[string]bool{},
		entries:  map[string]entry{},
		warned:   map[string]bool{},
	}
	for _, s := range settings() {
		l.settings[s.name] = s
		for i, c := range s.name {
			if c == '.' {
				l.tables[s.name[:i]] = true
			}
		}
	}
	return l
}

// addDocument takes the tables that a release build reads, lowest first.
func (l *loader) addDocument(doc *document) {
	profiles := map[string]string{} // canonical name → name as written
	for _, name := range slices.Sorted(maps.Keys(doc.tree)) {
		profile := strings.ToLower(name)
		_, isTable := doc.tree[name].(map[string]any)
		_, twice := profiles[profile]
		at := origin{doc: doc, key: []string{name}}
		switch {
		case !isTable:
			l.fail(at, toml.Key{name}.String(), errors.New("stands outside a profile table, write it below [global]"))
		case profile != "default" && profile != "debug" && profile != "release" && profile != "global":
			l.fail(at, toml.Key{name}.String(), errors.New("not a profile, expected [default], [release], [debug] or [global]"))
		case twice:
			l.fail(at, toml.Key{name}.String(), errors.New("profile given twice"))
		default:
			profiles[profile] = name
		}
	}
	for _, profile := range []string{"default", "release", "global"} {
		if name, ok := profiles[profile]; ok {
			l.add(nil, fromTOML(doc.tree[name]), origin{doc: doc, key: []string{name}})
		}
	}
}

// add records a value, or each value of a table.
func (l *loader) add(path []string, v value, from origin) {
	name := toml.Key(path).String()
	_, known := l.settings[name]
	switch {
	case known:
		l.entries[name] = entry{v, from}
	case len(path) == 0 || l.tables[name]:
		if v.kind != kindTable {
			l.fail(from, name, fmt.Errorf("expected a table, found %s", v.kind))
			return
		}
		l.addEach(path, v, from)
	case unserved(name):
		if v.kind == kindTable {
			l.addEach(path, v, from)
			return
		}
		l.warnUnserved(name, from)
	case from.doc == nil:
		l.warn(name, from, "unknown setting, ignored")
	default:
		l.fail(from, name, errors.New("unknown setting"))
	}
}

func (l *loader) addEach(path []string, table value, from origin) {
	for _, name := range slices.Sorted(maps.Keys(table.table)) {
		below := from
		if from.doc != nil {
			below.key = append(slices.Clone(from.key), name)
		}
		l.add(append(slices.Clone(path), name), table.table[name], below)
	}
}

func (l *loader) warnUnserved(name string, from origin) {
	if !l.warned[name] {
		l.warned[name] = true
		l.warn(name, from, "known to the reference but not served by this node, ignored")
	}
}

// maxWarnings is how many warnings are reported.
const maxWarnings = 100

func (l *loader) warn(name string, from origin, message string) {
	if len(l.warnings) >= maxWarnings {
		return
	}
	l.warnings = append(l.warnings, Warning{Setting: name, Source: from.String(), Message: message})
}

// maxErrors is how many errors are reported at once.
const maxErrors = 20

func (l *loader) fail(from origin, name string, err error) {
	if len(l.errs) >= maxErrors {
		return
	}
	l.errs = append(l.errs, fmt.Errorf("%s: %s: %w", from, name, err))
}

// build applies the collected values to the defaults and checks what concerns several of them. Place puts paths where they
// lead, before others follow from them.
func (l *loader) build(place func(*Config)) Config {
	c := defaults()
	for _, s := range settings() {
		if e, ok := l.entries[s.name]; ok {
			if err := s.set(&c, e.value); err != nil {
				l.fail(e.from, s.name, err)
			}
		}
	}
	place(&c)
	l.checkBlocks(&c)
	l.checkPorts(c)
	l.checkProxies(&c)
	l.checkTLS(c)
	l.warnings = append(l.warnings, c.derive()...)
	return c
}

// checkBlocks keeps a forgotten type from putting values on the local disk. What belongs to the other type may be left
// from a lower source, so it is dropped with a warning.
func (l *loader) checkBlocks(c *Config) {
	b := &c.Storage.Blocks
	drop := func(name string, field *string) {
		if e, ok := l.entries[name]; ok {
			l.warn(name, e.from, fmt.Sprintf("has no meaning with storage.blocks.type %s, ignored", b.Type))
			*field = ""
		}
	}
	typed, ok := l.entries["storage.blocks.type"]
	switch {
	case !ok:
		for _, name := range []string{"storage.blocks.bucket", "storage.blocks.endpoint"} {
			if e, ok := l.entries[name]; ok {
				l.fail(e.from, "storage.blocks.type", fmt.Errorf("required with %s", name))
			}
		}
	case b.Type == BlocksS3:
		drop("storage.blocks.path", &b.Path)
		if _, ok := l.entries["storage.blocks.bucket"]; !ok {
			l.fail(typed.from, "storage.blocks.bucket", errors.New("required with storage.blocks.type S3"))
		}
	case b.Type == BlocksLocal:
		drop("storage.blocks.bucket", &b.Bucket)
		drop("storage.blocks.endpoint", &b.Endpoint)
	}
}

// checkProxies takes ip_header alone, which the reference believes from everybody, to mean a proxy on this machine.
func (l *loader) checkProxies(c *Config) {
	e, named := l.entries["ip_header"]
	if _, set := l.entries["trusted_proxies"]; set || !named || len(c.ProxyHeaders) == 0 {
		return
	}
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	l.warn("ip_header", e.from, "believed only from a proxy on this machine: set trusted_proxies to where the proxy is")
}

// ports are those of our own listeners, by the names of their settings.
func (c Config) ports() map[string]uint16 {
	ports := map[string]uint16{"port": c.Port, "prometheus.port": c.PrometheusPort}
	if c.Page.On {
		ports["admin.port"] = c.Page.Port
	}
	return ports
}

// checkPorts finds two listeners with one port. A port that was left at its default gives way when the node starts, if it can.
func (l *loader) checkPorts(c Config) {
	for _, pair := range [][2]string{{"prometheus.port", "port"}, {"admin.port", "port"}, {"admin.port", "prometheus.port"}} {
		ports := c.ports()
		if ports[pair[0]] == 0 || ports[pair[0]] != ports[pair[1]] {
			continue
		}
		e, ok := l.entries[pair[0]]
		if !ok && pair[0] == "admin.port" {
			continue // nobody asked for it by name
		}
		if !ok {
			e = l.entries[pair[1]] // the defaults differ, so one of them is set
		}
		of := "the API's port too, set one of them"
		if pair[1] != "port" {
			of = pair[1] + " too, set one of them"
		}
		l.fail(e.from, pair[0], fmt.Errorf("%d is %s", ports[pair[0]], of))
	}
}
