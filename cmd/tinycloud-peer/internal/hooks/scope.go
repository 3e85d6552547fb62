package hooks

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// Abilities of the service hooks.
const (
	AbilitySubscribe  = "tinycloud.hooks/subscribe"
	AbilityRegister   = "tinycloud.hooks/register"
	AbilityList       = "tinycloud.hooks/list"
	AbilityUnregister = "tinycloud.hooks/unregister"
)

// Bounds of what is asked for.
const (
	MaxScopes    = 32
	MaxBody      = 64 << 10 // bytes of a request
	MaxTicketTTL = 300 * time.Second
	maxPrefix    = 4096 // bytes
)

// Scope is what somebody wants to be told of.
type Scope struct {
	Space     tinycloud.SpaceID `json:"space"`
	Service   string            `json:"service"`
	Prefix    string            `json:"pathPrefix,omitempty"` // by segment; "" for all
	Abilities []string          `json:"abilities,omitempty"`  // none: all

	after capstore.Cursor // changes up to it are not told
}

// filters are the abilities that a service's events have. Of services that are not served here there are
// no events; they may be asked for, because SDKs ask for all subscriptions of a client at once.
func filters(service string) []string {
	switch service {
	case "kv":
		return []string{"tinycloud.kv/put", "tinycloud.kv/del"}
	case "sql":
		return []string{"tinycloud.sql/write"}
	case "duckdb":
		return []string{"tinycloud.duckdb/write"}
	}
	return nil
}

func refuse(text string) error { return tinycloud.Refuse(tinycloud.ErrInvalid, "%s", text) }

// NewScope checks the parts of a scope. Slashes around the prefix do not count.
func NewScope(space, service, prefix string, abilities []string) (s Scope, err error) {
	s = Scope{Service: service, Prefix: strings.Trim(prefix, "/")}
	if s.Space, err = tinycloud.ParseSpaceID(space); err != nil {
		return s, refuse("Invalid space ID")
	}
	known := filters(service)
	if known == nil {
		return s, refuse("Unsupported hook service")
	}
	if len(s.Prefix) > maxPrefix {
		return s, refuse("Invalid path")
	}
	for _, a := range abilities {
		if !slices.Contains(known, a) {
			return s, refuse("hook ability filter does not match service")
		}
		if !slices.Contains(s.Abilities, a) {
			s.Abilities = append(s.Abilities, a)
		}
	}
	return s, nil
}

// matches reports whether a change is of the scope.
func (s Scope) matches(c capstore.Change) bool {
	return s.Service == c.Service && s.Space == c.Space && c.Cursor.Compare(s.after) > 0 &&
		(within(c.Key, s.Prefix) || c.Also != "" && within(c.Also, s.Prefix)) &&
		(len(s.Abilities) == 0 || slices.Contains(s.Abilities, c.Ability))
}

// within reports whether a path is a prefix or continues it at a segment boundary.
func within(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (prefix == "" || rest == "" || rest[0] == '/')
}

// path is the scope as the path of a resource of hooks.
func (s Scope) path() string {
	if s.Prefix == "" {
		return s.Service
	}
	return s.Service + "/" + s.Prefix
}

// permits reports whether an admitted invocation holds an ability of hooks on a path. A resource without a
// path, or with the empty one, stands for all paths.
func permits(t *capstore.Token, ability string, space tinycloud.SpaceID, path string) bool {
	return slices.ContainsFunc(t.Caps, func(c capstore.Capability) bool {
		if c.Ability != ability || c.Resource.Space() != space || c.Resource.Service() != "hooks" {
			return false
		}
		held, has := c.Resource.Path()
		base := space.String() + "/hooks"
		if has {
			base += "/" + held
		}
		return c.Resource.String() == base && within(path, held) // no query, no fragment
	})
}

// permitted refuses what an invocation does not cover.
func permitted(t *capstore.Token, ability string, space tinycloud.SpaceID, paths ...string) error {
	if !slices.ContainsFunc(paths, func(p string) bool { return permits(t, ability, space, p) }) {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "requested hook scope is not authorized")
	}
	return nil
}

// TicketRequest is what a ticket is to open.
type TicketRequest struct {
	Scopes []Scope
	TTL    time.Duration
}

// ParseTicketRequest reads the body of a request for a ticket. Refusals are of class
// [tinycloud.ErrInvalid].
func ParseTicketRequest(body []byte) (q TicketRequest, err error) {
	var in struct {
		Subscriptions []struct {
			Space, Service string
			PathPrefix     *string
			Abilities      []string
		}
		TTLSeconds *float64
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return q, refuse("Invalid hook request")
	}
	switch {
	case len(in.Subscriptions) == 0:
		return q, refuse("at least one subscription is required")
	case len(in.Subscriptions) > MaxScopes:
		return q, refuse("too many requested hook scopes")
	}
	for _, sub := range in.Subscriptions {
		prefix := ""
		if sub.PathPrefix != nil {
			prefix = *sub.PathPrefix
		}
		s, err := NewScope(sub.Space, sub.Service, prefix, sub.Abilities)
		if err != nil {
			return q, err
		}
		q.Scopes = append(q.Scopes, s)
	}
	q.TTL = MaxTicketTTL
	if in.TTLSeconds != nil {
		if *in.TTLSeconds < 0 {
			return q, refuse("Invalid hook request")
		}
		q.TTL = time.Duration(min(*in.TTLSeconds, MaxTicketTTL.Seconds()) * float64(time.Second))
	}
	return q, nil
}
