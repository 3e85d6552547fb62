package hostlog

import (
	"fmt"
	"math"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Host is a host of a Space and where it was last reached.
type Host struct {
	Host  Key
	Self  bool
	Addrs []string // multiaddrs of its Space peer
	Seq   uint64   // of the record the addresses came from
	Seen  time.Time
	// Forked says that the host signed two entries of one number.
	Forked bool
	// Forks are the proofs: the digests of two entries, which this host stores and serves with the signatures.
	Forks []Fork
	// Met says that the host was met since it can be told what Hello is about.
	Met   bool
	Hello Hello
}

// OlderThan says that the host is known to judge by older rules than some.
func (k Host) OlderThan(rules uint64) bool { return k.Met && k.Hello.OlderThan(rules) }

// Fork names two entries of one number that a host signed.
type Fork struct {
	N       uint64
	Digests [2]tinycloud.Hash
}

// Service is a kind of operations that a host understands.
type Service struct {
	Name    string `json:"name"`
	Version uint64 `json:"version"` // the greatest form of its operations
}

// Hello is what a host tells of its release when it meets another one.
type Hello struct {
	// Rules are those that it judges by, 0 when it tells nothing: its release is older than the handshake that
	// tells, and its rules are older than any that were told.
	Rules    uint64
	Services []Service
}

// RulesOfServices are the first by which operations of other services than key-value are what they are. A host of older
// ones takes them for forged.
const RulesOfServices = 5

// Bounds of what a host tells.
const (
	maxRules       = math.MaxInt32
	maxServices    = 32
	maxServiceName = 32 // bytes
)

// Version is that of a service; ok is false if the host doesn't have it.
func (h Hello) Version(service string) (version uint64, ok bool) {
	i := slices.IndexFunc(h.Services, func(s Service) bool { return s.Name == service })
	if i < 0 {
		return 0, false
	}
	return h.Services[i].Version, true
}

// OlderThan reports whether a host judges by older rules than some.
func (h Hello) OlderThan(rules uint64) bool { return h.Rules < rules }

// Check refuses what is beyond the bounds, or no name of a service: printable ASCII without blanks. The error is of
// class [tinycloud.ErrInvalid].
func (h Hello) Check() error {
	if h.Rules > maxRules {
		return fmt.Errorf("rules %d, at most %d: %w", h.Rules, maxRules, tinycloud.ErrInvalid)
	}
	if len(h.Services) > maxServices {
		return fmt.Errorf("%d services, at most %d: %w", len(h.Services), maxServices, tinycloud.ErrInvalid)
	}
	for _, s := range h.Services {
		if len(s.Name) == 0 || len(s.Name) > maxServiceName {
			return fmt.Errorf("service with a name of %d bytes, at most %d: %w", len(s.Name), maxServiceName, tinycloud.ErrInvalid)
		}
		if slices.ContainsFunc([]byte(s.Name), func(c byte) bool { return c <= ' ' || c > '~' }) {
			return fmt.Errorf("service %q: name: %w", s.Name, tinycloud.ErrInvalid)
		}
	}
	return nil
}
