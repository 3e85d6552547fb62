package config

import (
	"net/netip"
	"strings"
	"time"
)

// Config is everything an operator can set. The name in parentheses is the setting's key in tinycloud.toml, below
// a profile table; its environment variable is the key in capitals with "_" for ".", after TINYCLOUD_.
// Relative paths of a file are relative to its directory, those of a variable to the working directory of the process.
type Config struct {
	// Address (address) is the IP the HTTP API listens on. Default 127.0.0.1.
	Address netip.Addr
	// Port (port) is the TCP port of the HTTP API; 0 lets the system choose. Default 8000.
	Port uint16
	TLS  TLS
	// TrustedProxies (trusted_proxies) are the addresses of proxies, as CIDRs, that are believed whose requests they pass
	// on. Default none; with ip_header this machine.
	TrustedProxies []netip.Prefix
	// ProxyHeaders (ip_header) are the headers by which trusted proxies name a client: one, or with false none.
	// Default Forwarded and X-Forwarded-For.
	ProxyHeaders []string
	// CORS (cors) answers browsers of every origin. Default true.
	CORS bool
	// LogLevel (log_level) is off, critical, normal or debug. Default normal.
	LogLevel LogLevel
	Log      Log
	Storage  Storage
	Spaces   Spaces
	// PrometheusAddress (prometheus.address) is the IP that the metrics listen on. Default 127.0.0.1.
	PrometheusAddress netip.Addr
	// PrometheusPort (prometheus.port) is the TCP port of the metrics, on PrometheusAddress; 0 lets the system choose.
	// Default 8001.
	PrometheusPort uint16
	Keys           Keys
	// MaxLifetime (invocation.max_lifetime_secs, whole seconds, 1 to 2^31-1) is how far ahead the expiry of an
	// invocation may lie. Default 300 s.
	MaxLifetime  time.Duration
	PublicSpaces PublicSpaces
	Encryption   Encryption
	P2P          P2P
	Page         Page
	// AdminSecret (admin.secret) is the bearer token of /admin, 16 bytes or more; zero closes /admin over HTTP. Taken from
	// TINYCLOUD_ADMIN_SECRET as it stands, without unquoting.
	AdminSecret Secret
	// QuotaURL (quota_url) is the base URL of a quota service, http or https. Default none.
	QuotaURL string
}

// Page says where the operator's web page is.
type Page struct {
	// On (admin.port, false for none) serves it. Default true.
	On bool
	// Address (admin.address) is the IP that it listens on. Default 127.0.0.1.
	Address netip.Addr
	// Port (admin.port) is its TCP port; 0 lets the system choose. Default 8002.
	Port uint16
}

// Log says how lines look, and which header names a trace.
type Log struct {
	// Format (log.format) is Text or Json. Default Text.
	Format LogFormat
	// TraceHeader (log.tracing.traceheader) is the response header that names the trace of a request.
	// Default TinyCloud-Trace-Id.
	TraceHeader string
}

// Storage says where data lives and how much of it a Space may hold.
type Storage struct {
	// Datadir (storage.datadir) is the root of all local data; "" is none. It holds the generated secret, and the
	// database and blocks unless these are set. Default $STATE_DIRECTORY, which systemd sets, else tinycloud-peer below
	// $XDG_DATA_HOME or ~/.local/share; none where keys.secret is set. The shipped tinycloud.toml sets ./data.
	Datadir string
	// Database (storage.database) is sqlite:PATH, a bare path, sqlite::memory:, postgres://… or mysql://….
	// Default sqlite:<datadir>/caps.db, without datadir sqlite::memory:, which forgets everything at exit.
	Database Database
	Blocks   Blocks
	// Staging (storage.staging) is where an upload waits until its hash is known, Memory or FileSystem.
	// Default Memory.
	Staging Staging
	// Limit (storage.limit) is how many bytes of values a Space may hold; 0 is no limit. Default 0.
	Limit ByteSize
	// Reserve (storage.reserve) is how many bytes stay free on the disks of the database and the values: with less, what
	// adds data is refused, and nothing is replicated here; 0 is none. Default 256 MiB.
	Reserve ByteSize
}

// Blocks says where values are kept.
type Blocks struct {
	// Type (storage.blocks.type) is Local or S3. Default Local.
	Type BlocksType
	// Path (storage.blocks.path) is the directory of a Local store, "" with S3. Default <datadir>/blocks, without
	// datadir ./data/blocks.
	Path string
	// Bucket (storage.blocks.bucket) is the bucket of an S3 store; required there, "" with Local.
	Bucket string
	// Endpoint (storage.blocks.endpoint) is the URL of an S3 service other than AWS. Credentials and region come
	// from the AWS_* variables. "" is AWS.
	Endpoint string
}

// Spaces says who may host here.
type Spaces struct {
	// Allowlist (spaces.allowlist) is the http or https URL asked whether a Space may be hosted, "" for all may.
	Allowlist string
}

// Keys is the source of every key of this node.
type Keys struct {
	// Type (keys.type) is static, also spelled Static: the only type. Default static.
	Type string
	// Secret (keys.secret) is unpadded base64url of 32 bytes or more. Zero: see [Config.ResolveSecret].
	Secret Secret
}

// PublicSpaces bounds what anyone may read without a capability.
type PublicSpaces struct {
	// RatePerMinute (public_spaces.rate_limit_per_minute) is requests per minute and client. Default 60.
	RatePerMinute uint32
	// RateBurst (public_spaces.rate_limit_burst) is how many of them may come at once. Default 10.
	RateBurst uint32
	// Limit (public_spaces.storage_limit) is the storage limit of a Space named public, in bytes. Default 10 MiB.
	Limit ByteSize
}

// Encryption says what becomes of the keys of encryption networks.
type Encryption struct {
	// Share (encryption.share) says to which hosts they are handed over. Default paired.
	Share Share
}

// P2P says how this node meets others. Addresses are multiaddrs.
type P2P struct {
	// Listen (p2p.listen) is where the node listens; empty is nowhere.
	// Default /ip4/0.0.0.0/tcp/4001 and /ip4/0.0.0.0/udp/4001/quic-v1.
	Listen []string
	// Announce (p2p.announce) replaces the addresses told to other hosts; empty is those the node finds out.
	Announce []string
	// Bootstrap (p2p.bootstrap) are addresses of Spaces or of nodes to try; each ends in /p2p/<peer ID>.
	Bootstrap []string
	// Allow (p2p.allow) says with which nodes Spaces may replicate: any, those that are listed in Bootstrap or paired, or
	// none. Default any.
	Allow Allow
	// JoinTimeout (p2p.join_timeout, such as "10s", or whole seconds, 100 ms to 1 h) is how long a Space without anything
	// of another host waits for its history while nodes are named, and after how long their silence is an answer.
	// Default 10 s.
	JoinTimeout time.Duration
	// Values (p2p.values) says which values are fetched of Spaces that have no policy of their own. Default eager.
	Values Values
	// MDNS (p2p.mdns) looks for hosts of its Spaces on the local network. Default false.
	MDNS bool
	// DHT (p2p.dht) looks for hosts of its Spaces in the TinyCloud DHT. Default false.
	DHT bool
	// NAT (p2p.nat) makes a node behind a router reachable: it asks for a port, finds out its address, and connects
	// over other hosts of its Spaces, directly if that can be had. Default true.
	NAT bool
	// Isolated (p2p.isolated) gives each Space listeners of its own, so that Spaces share no connection: on the
	// addresses of Listen, with ports from 10000 to 32767 that follow from the secret and the Space. It excludes DHT,
	// MDNS and Announce. Default false.
	Isolated bool
}

// defaults leaves derived settings zero, so that derive can tell what was set.
func defaults() Config {
	return Config{
		Address:           netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		Port:              8000,
		TLS:               TLS{Plain: true, PlainPort: 80},
		ProxyHeaders:      []string{"Forwarded", "X-Forwarded-For"},
		CORS:              true,
		LogLevel:          LogNormal,
		Log:               Log{Format: LogText, TraceHeader: "TinyCloud-Trace-Id"},
		Storage:           Storage{Staging: StagingMemory, Reserve: 256 << 20},
		PrometheusPort:    8001,
		PrometheusAddress: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		Page:              Page{On: true, Address: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: 8002},
		Keys:              Keys{Type: "static"},
		MaxLifetime:       300 * time.Second,
		Encryption:        Encryption{Share: SharePaired},
		PublicSpaces:      PublicSpaces{RatePerMinute: 60, RateBurst: 10, Limit: 10 << 20},
		P2P:               P2P{Listen: []string{"/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"}, Allow: AllowAny, Values: ValuesEager, NAT: true, JoinTimeout: 10 * time.Second},
	}
}

// derive fills in what follows from other settings.
func (c *Config) derive() []Warning {
	var warnings []Warning
	s := &c.Storage
	switch {
	case !s.Database.IsZero():
	case s.Datadir == "":
		s.Database = Database{scheme: SQLite}
		warnings = append(warnings, Warning{
			Setting: "storage.database",
			Message: "neither storage.database nor storage.datadir is set: data is kept in memory and lost at exit",
		})
	default:
		s.Database = Database{scheme: SQLite, path: below(s.Datadir, "caps.db")}
	}
	if s.Blocks.Type == "" {
		s.Blocks.Type = BlocksLocal
	}
	if s.Blocks.Type == BlocksLocal && s.Blocks.Path == "" {
		root := s.Datadir
		if root == "" {
			root = "./data"
		}
		s.Blocks.Path = below(root, "blocks")
	}
	return warnings
}

// OnFiles reports whether all data are files of this machine: SQLite, with the values on disk.
func (s Storage) OnFiles() bool {
	return s.Database.Scheme() == SQLite && !s.Database.InMemory() && s.Blocks.Path != ""
}

// On is the configuration of a node whose data are a copy that is a data directory of its own: SQLite, with the values beside it.
func (c Config) On(datadir string) Config {
	c.Storage.Datadir, c.Storage.Database = datadir, Database{scheme: SQLite, path: below(datadir, "caps.db")}
	c.Storage.Blocks = Blocks{Type: BlocksLocal, Path: below(datadir, "blocks")}
	return c
}

// below keeps the spelling of dir, so that ./data stays what the operator wrote.
func below(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// BlocksDir returns the directory that the store of values has for itself: the values of a Local store; with S3,
// uploads under way and an index that can be made anew from the bucket.
func (c Config) BlocksDir() string {
	if c.Storage.Blocks.Type != BlocksS3 {
		return c.Storage.Blocks.Path
	}
	root := c.Storage.Datadir
	if root == "" {
		root = "./data"
	}
	return below(below(root, "s3"), c.Storage.Blocks.Bucket)
}

// SecretFile returns where a generated secret is kept, "" without datadir.
func (c Config) SecretFile() string {
	if c.Storage.Datadir == "" {
		return ""
	}
	return below(c.Storage.Datadir, "secret")
}

// A Warning is something an operator should know and that does not keep the node from starting.
type Warning struct {
	Setting string // key as in the file, or the variable's name when it stands for no key
	Source  string // file:line or variable, "" when it follows from what is not set
	Message string // never holds a value
}

func (w Warning) String() string {
	if w.Source == "" || w.Source == w.Setting {
		return w.Setting + ": " + w.Message
	}
	return w.Source + ": " + w.Setting + ": " + w.Message
}
