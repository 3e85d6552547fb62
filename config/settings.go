package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// setting is one key: how its value gets into a Config.
type setting struct {
	name string
	set  func(*Config, value) error
}

// settings lists every key we serve, in the order their errors are reported.
func settings() []setting {
	return slices.Concat(coreSettings(), tlsSettings(), storageSettings(), p2pSettings())
}

func coreSettings() []setting {
	return []setting{
		{"address", address(func(c *Config) *netip.Addr { return &c.Address })},
		{"port", port(func(c *Config) *uint16 { return &c.Port })},
		{"trusted_proxies", setTrustedProxies},
		{"ip_header", setIPHeader},
		{"cors", flag(func(c *Config) *bool { return &c.CORS })},
		{"log_level", oneOf(strings.ToLower, func(c *Config) *LogLevel { return &c.LogLevel }, LogOff, LogCritical, LogNormal, LogDebug)},
		{"log.format", oneOf(exact, func(c *Config) *LogFormat { return &c.Log.Format }, LogText, LogJSON)},
		{"log.tracing.traceheader", text(checkHeader, func(c *Config) *string { return &c.Log.TraceHeader })},
		{"spaces.allowlist", text(checkURL, func(c *Config) *string { return &c.Spaces.Allowlist })},
		{"prometheus.address", address(func(c *Config) *netip.Addr { return &c.PrometheusAddress })},
		{"prometheus.port", port(func(c *Config) *uint16 { return &c.PrometheusPort })},
		{"keys.type", setKeysType},
		{"keys.secret", setKeysSecret},
		{"invocation.max_lifetime_secs", setMaxLifetime},
		{"public_spaces.rate_limit_per_minute", count(func(c *Config) *uint32 { return &c.PublicSpaces.RatePerMinute })},
		{"public_spaces.rate_limit_burst", count(func(c *Config) *uint32 { return &c.PublicSpaces.RateBurst })},
		{"public_spaces.storage_limit", size(func(c *Config) *ByteSize { return &c.PublicSpaces.Limit })},
		{"encryption.share", oneOf(strings.ToLower, func(c *Config) *Share { return &c.Encryption.Share }, SharePaired, ShareHosts, ShareOff)},
		{"admin.address", address(func(c *Config) *netip.Addr { return &c.Page.Address })},
		{"admin.port", portOrNone(func(c *Config) (*bool, *uint16) { return &c.Page.On, &c.Page.Port })},
		{"admin.secret", setAdminSecret},
		{"quota_url", text(checkQuotaURL, func(c *Config) *string { return &c.QuotaURL })},
	}
}

func storageSettings() []setting {
	return []setting{
		{"storage.datadir", text(checkDatadir, func(c *Config) *string { return &c.Storage.Datadir })},
		{"storage.database", setDatabase},
		{"storage.blocks.type", oneOf(exact, func(c *Config) *BlocksType { return &c.Storage.Blocks.Type }, BlocksLocal, BlocksS3)},
		{"storage.blocks.path", text(checkPath, func(c *Config) *string { return &c.Storage.Blocks.Path })},
		{"storage.blocks.bucket", text(checkBucket, func(c *Config) *string { return &c.Storage.Blocks.Bucket })},
		{"storage.blocks.endpoint", text(checkURL, func(c *Config) *string { return &c.Storage.Blocks.Endpoint })},
		{"storage.staging", oneOf(exact, func(c *Config) *Staging { return &c.Storage.Staging }, StagingMemory, StagingFileSystem)},
		{"storage.reserve", size(func(c *Config) *ByteSize { return &c.Storage.Reserve })},
		{"storage.limit", size(func(c *Config) *ByteSize { return &c.Storage.Limit })},
	}
}

func p2pSettings() []setting {
	return []setting{
		{"p2p.listen", list(checkListen, func(c *Config) *[]string { return &c.P2P.Listen })},
		{"p2p.announce", list(checkAnnounce, func(c *Config) *[]string { return &c.P2P.Announce })},
		{"p2p.bootstrap", list(checkBootstrap, func(c *Config) *[]string { return &c.P2P.Bootstrap })},
		{"p2p.allow", oneOf(strings.ToLower, func(c *Config) *Allow { return &c.P2P.Allow }, AllowAny, AllowListed, AllowOff)},
		{"p2p.join_timeout", setJoinTimeout},
		{"p2p.values", oneOf(strings.ToLower, func(c *Config) *Values { return &c.P2P.Values }, ValuesEager, ValuesLazy, ValuesAll)},
		{"p2p.mdns", flag(func(c *Config) *bool { return &c.P2P.MDNS })},
		{"p2p.dht", flag(func(c *Config) *bool { return &c.P2P.DHT })},
		{"p2p.nat", flag(func(c *Config) *bool { return &c.P2P.NAT })},
		{"p2p.isolated", flag(func(c *Config) *bool { return &c.P2P.Isolated })},
	}
}

// unserved reports whether name is a key of the reference, or of the web framework below it, that we do not serve.
func unserved(name string) bool {
	top, _, _ := strings.Cut(name, ".")
	switch top {
	case "relay", "telemetry", "hooks", "tee", "retention", "share_email", "database", "did_resolution_timeout_ms",
		"workers", "max_blocking", "ident", "proxy_proto_header", "limits", "temp_dir", "keep_alive",
		"secret_key", "shutdown", "cli_colors", "profile":
		return true
	}
	return name == "log.tracing.enabled" || name == "storage.sql" || name == "storage.duckdb" ||
		strings.HasPrefix(name, "storage.sql.") || strings.HasPrefix(name, "storage.duckdb.")
}

func flag(field func(*Config) *bool) func(*Config, value) error {
	return func(c *Config, v value) (err error) {
		*field(c), err = v.boolean()
		return err
	}
}

func port(field func(*Config) *uint16) func(*Config, value) error {
	return func(c *Config, v value) error {
		n, err := v.integer(0, math.MaxUint16)
		*field(c) = uint16(n)
		return err
	}
}

// portOrNone takes a port, or false for none.
func portOrNone(fields func(*Config) (on *bool, port *uint16)) func(*Config, value) error {
	return func(c *Config, v value) error {
		on, port := fields(c)
		if v.kind == kindBool {
			if v.text == "true" {
				return errors.New("expected a port or false")
			}
			*on = false
			return nil
		}
		n, err := v.integer(0, math.MaxUint16)
		*on, *port = true, uint16(n)
		return err
	}
}

func count(field func(*Config) *uint32) func(*Config, value) error {
	return func(c *Config, v value) error {
		n, err := v.integer(1, math.MaxUint32)
		*field(c) = uint32(n)
		return err
	}
}

func size(field func(*Config) *ByteSize) func(*Config, value) error {
	return func(c *Config, v value) (err error) {
		*field(c), err = v.byteSize()
		return err
	}
}

func text(check func(string) error, field func(*Config) *string) func(*Config, value) error {
	return func(c *Config, v value) error {
		s, err := v.str()
		if err != nil {
			return err
		}
		*field(c) = s
		return check(s)
	}
}

func list(check func(string) error, field func(*Config) *[]string) func(*Config, value) error {
	return func(c *Config, v value) error {
		items, err := v.strs()
		if err != nil {
			return err
		}
		*field(c) = items
		for _, item := range items {
			if err := check(item); err != nil {
				return err
			}
		}
		return nil
	}
}

func exact(s string) string { return s }

func oneOf[T ~string](fold func(string) string, field func(*Config) *T, allowed ...T) func(*Config, value) error {
	return func(c *Config, v value) error {
		s, err := v.str()
		if err != nil {
			return err
		}
		if *field(c) = T(fold(s)); !slices.Contains(allowed, *field(c)) {
			return fmt.Errorf("%q is not one of %v", s, allowed)
		}
		return nil
	}
}

func address(field func(*Config) *netip.Addr) func(*Config, value) error {
	return func(c *Config, v value) error {
		s, err := v.str()
		if err != nil {
			return err
		}
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return fmt.Errorf("%q is not an IP address", s)
		}
		*field(c) = a
		return nil
	}
}

// setTrustedProxies reads addresses and ranges of them. All there are is no range: that would believe everybody.
func setTrustedProxies(c *Config, v value) error {
	items, err := v.strs()
	if err != nil {
		return err
	}
	c.TrustedProxies = nil
	for _, item := range items {
		p, err := netip.ParsePrefix(item)
		if addr, single := netip.ParseAddr(item); single == nil && addr.Zone() == "" {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || p.Bits() == 0 || p.Addr().Is4In6() {
			return fmt.Errorf("%q is not an address or a range such as 10.0.0.0/8", item)
		}
		c.TrustedProxies = append(c.TrustedProxies, p.Masked())
	}
	return nil
}

// setIPHeader takes what the reference's web framework does: a name, or false for none.
func setIPHeader(c *Config, v value) error {
	if v.kind == kindBool {
		if v.text == "true" {
			return errors.New("expected the name of a header or false")
		}
		c.ProxyHeaders = nil
		return nil
	}
	name, err := v.str()
	c.ProxyHeaders = []string{name}
	if err != nil {
		return err
	}
	return checkHeader(name)
}

func setDatabase(c *Config, v value) error {
	s, err := v.str()
	if err != nil {
		return err
	}
	c.Storage.Database, err = ParseDatabase(s)
	return err
}

func setKeysType(c *Config, v value) error {
	s, err := v.str()
	if err != nil {
		return err
	}
	if s != "static" && s != "Static" {
		return fmt.Errorf("%q is not served, only static", s)
	}
	c.Keys.Type = "static"
	return nil
}

func setKeysSecret(c *Config, v value) error {
	s, err := v.secret()
	if err != nil {
		return err
	}
	c.Keys.Secret, err = ParseSecret(s)
	return err
}

const minAdminSecret = 16 // bytes; what can be guessed is no secret

func setAdminSecret(c *Config, v value) error {
	s, err := v.secret()
	if n := len(s); err == nil && n > 0 && n < minAdminSecret {
		return fmt.Errorf("%d bytes, expected %d or more, such as of \"openssl rand -hex 32\"", n, minAdminSecret)
	}
	c.AdminSecret = NewSecret([]byte(s))
	return err
}

func setMaxLifetime(c *Config, v value) error {
	n, err := v.integer(1, math.MaxInt32)
	c.MaxLifetime = time.Duration(n) * time.Second
	return err
}

func setJoinTimeout(c *Config, v value) error {
	const least, most = 100 * time.Millisecond, time.Hour
	if v.kind == kindInteger {
		n, err := v.integer(1, uint64(most/time.Second))
		c.P2P.JoinTimeout = time.Duration(n) * time.Second
		return err
	}
	text, err := v.str()
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		return fmt.Errorf("%q is not a time from %s to %s, such as \"10s\"", text, least, most)
	}
	c.P2P.JoinTimeout = d
	return nil
}
