package config

// LogLevel is how much is logged.
type LogLevel string

// The log levels, from least to most. Any case is accepted.
const (
	LogOff      LogLevel = "off"
	LogCritical LogLevel = "critical"
	LogNormal   LogLevel = "normal"
	LogDebug    LogLevel = "debug"
)

// LogFormat is the form of a log line.
type LogFormat string

// The log formats, in this exact case.
const (
	LogText LogFormat = "Text"
	LogJSON LogFormat = "Json"
)

// BlocksType is a kind of block store.
type BlocksType string

// The kinds of block store, in this exact case.
const (
	BlocksLocal BlocksType = "Local"
	BlocksS3    BlocksType = "S3"
)

// Staging is where an upload waits until its hash is known.
type Staging string

// The places of staging, in this exact case.
const (
	StagingMemory     Staging = "Memory"
	StagingFileSystem Staging = "FileSystem"
)

// Values says which values a node fetches of the Spaces it replicates.
type Values string

// The policies of values. Any case is accepted.
const (
	ValuesEager Values = "eager" // current ones
	ValuesLazy  Values = "lazy"  // what somebody reads
	ValuesAll   Values = "all"   // those of the history too
)

// Share says to which hosts the keys of encryption networks are handed over.
type Share string

// To whom keys go, of the hosts that the owner of the secrets signed for himself. Any case is accepted.
const (
	SharePaired Share = "paired" // to those whose nodes are paired, or approved
	ShareHosts  Share = "hosts"  // to all
	ShareOff    Share = "off"    // to none; none are taken either
)

// Allow says with which nodes Spaces may replicate.
type Allow string

// Whom Spaces may replicate with. Any case is accepted.
const (
	AllowAny    Allow = "any"    // whoever the owners of Spaces make their hosts
	AllowListed Allow = "listed" // of those the nodes of p2p.bootstrap, and paired ones
	AllowOff    Allow = "off"    // nobody
)
