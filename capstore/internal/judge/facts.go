package judge

import (
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// Rules is the version of these rules and of the fold: a history that was judged by other ones is judged anew.
const Rules = 5

// Slack is how far an entry's time may be from the truth: windows are widened by it, and an entry may
// claim to be that much older than what it builds on.
const Slack = 120 * time.Second

// Earliest returns the least time, in unix milliseconds, that an entry may have whose epoch's parents have the time F
// (docs/replication.md, "Epochs").
func Earliest(f int64) int64 { return f - Slack.Milliseconds() }

// Spot is the place of an entry: a branch of a host's log, numbered locally, and the entry's number.
type Spot struct {
	Branch uint32
	N      uint64
}

// Clock is the causal past of an epoch: per log branch the greatest entry number whose epoch is a
// proper ancestor. Since a log's entries are ancestors of its later ones, it covers all before.
type Clock map[uint32]uint64

// Has reports whether the entry at a spot is of the clock's past.
func (c Clock) Has(s Spot) bool {
	n, ok := c[s.Branch]
	return ok && s.N <= n
}

// Add takes the entry at a spot, and so all before it, into the past.
func (c Clock) Add(s Spot) {
	if n, ok := c[s.Branch]; !ok || s.N > n {
		c[s.Branch] = s.N
	}
}

// Place is where an event stands: one entry of its epoch, and the event's index in the epoch.
type Place struct {
	Spot
	Epoch tinycloud.Hash
	Index int
}

// Here is the point of the history from which something is judged.
type Here struct {
	Epoch tinycloud.Hash
	Index int // events of the epoch below this index are past; an epoch's own judgement uses all
	Past  Clock
	Spots []Spot // of the epoch's entries, to judge one of them
}

const all = int(^uint(0) >> 1) // events of an epoch

func (h Here) sees(places []Place) bool {
	for _, p := range places {
		if h.Past.Has(p.Spot) || (p.Epoch == h.Epoch && p.Index < h.Index) {
			return true
		}
	}
	return false
}

type fact struct {
	token  *token.Token
	places []Place
	// Of a revocation: whether it has an effect, and the unknown delegations on which that depends.
	effective bool
	awaits    map[tinycloud.Hash]struct{}
}

// Facts are the delegations and revocations of one Space, with the places they stand at. A fact counts
// by its content wherever it stands. Of a token it keeps what verdicts need. It is not safe for concurrent writes.
type Facts struct {
	space       tinycloud.SpaceID
	delegations map[tinycloud.Hash]*fact
	revocations map[tinycloud.Hash]*fact
	hosts       map[hostlog.Key][]*fact
	hosting     []*token.Token              // the delegations of the right to host, also to others than hosts
	wanted      map[tinycloud.Hash]struct{} // delegations whose arrival may change a verdict
	waiting     map[hostlog.Key]struct{}    // importers that no host delegation was seen for
	removals    []*Removal

	// Revocations are found by what they end, and by the unknown delegations they await: a new token costs the same
	// however many there are.
	effective map[tinycloud.Hash][]*fact // those with an effect, by target
	awaited   map[tinycloud.Hash][]*fact
	ended     map[tinycloud.Hash]struct{} // delegations that were told of or are in untold
	untold    []End

	keeping
}

// NewFacts returns the empty set of a Space.
func NewFacts(space tinycloud.SpaceID) *Facts {
	return &Facts{
		space:       space,
		delegations: map[tinycloud.Hash]*fact{}, revocations: map[tinycloud.Hash]*fact{},
		hosts: map[hostlog.Key][]*fact{}, wanted: map[tinycloud.Hash]struct{}{}, waiting: map[hostlog.Key]struct{}{},
		effective: map[tinycloud.Hash][]*fact{}, awaited: map[tinycloud.Hash][]*fact{}, ended: map[tinycloud.Hash]struct{}{},
		keeping: newKeeping(),
	}
}

// Add takes a token whose signature is good into the set, or adds a place to it. It reports whether
// earlier verdicts may change and have to be made again.
func (f *Facts) Add(t *token.Token, at Place) (again bool) {
	kind := f.delegations
	if t.Kind == token.Revocation {
		kind = f.revocations
	} else if t.Kind != token.Delegation {
		return false
	}
	if have := kind[t.ID]; have != nil {
		have.places = append(have.places, at)
		f.size += sizeOfPlace
		return false
	}
	t = f.keep(t)
	n := &fact{token: t, places: []Place{at}}
	kind[t.ID] = n
	if t.Kind == token.Revocation {
		f.weigh(n)
		return false // what it ends comes after it
	}
	_, again = f.wanted[t.ID]
	if t.HostsSpace(f.space) {
		f.hosting = append(f.hosting, t)
		if host, ok := hostlog.KeyOf(t.Audience); ok {
			f.hosts[host] = append(f.hosts[host], n)
			_, waited := f.waiting[host]
			again = again || waited
		}
	}
	return f.arrived(t.ID) || again
}

// Forget empties the record of what verdicts waited for, before all are made again.
func (f *Facts) Forget() {
	clear(f.wanted)
	clear(f.waiting)
}

// Delegation returns a delegation of the set, nil when unknown.
func (f *Facts) Delegation(id tinycloud.Hash) *token.Token {
	if n := f.delegations[id]; n != nil {
		return n.token
	}
	return nil
}

// Seen reports whether a delegation or revocation stands in a causal past.
func (f *Facts) Seen(id tinycloud.Hash, past Clock) bool {
	for _, n := range []*fact{f.delegations[id], f.revocations[id]} {
		if n != nil && (Here{Past: past}).sees(n.places) {
			return true
		}
	}
	return false
}

// search begins one for a right to host.
func (f *Facts) search() *Search {
	return &Search{find: f.Delegation, looks: MaxChain}
}

// want has verdicts made again when a delegation comes that was looked for: also those that do not need it, for what it
// rests on may use up what is looked at.
func (f *Facts) want(ids []tinycloud.Hash) {
	for _, id := range ids {
		f.wanted[id] = struct{}{}
	}
}

// Able is Host as if no host had been removed.
func (f *Facts) Able(host hostlog.Key, at time.Time, h Here) error {
	_, err := f.host(host, at, h, nil)
	return err
}

// Host reports whether a host may extend the history with an entry of a given time: a host delegation
// to its key, in window then, stands in the epoch or its past, and the entry survives the removals that end
// it. It returns the delegation.
func (f *Facts) Host(host hostlog.Key, at time.Time, h Here) (*token.Token, error) {
	return f.host(host, at, h, f.removals)
}

func (f *Facts) host(host hostlog.Key, at time.Time, h Here, removals []*Removal) (*token.Token, error) {
	h.Index = all
	var err error
	for _, n := range f.hosts[host] {
		if !h.sees(n.places) {
			continue
		}
		if !n.token.ValidAt(at, 0) {
			err = fmt.Errorf("host delegation %s is not in its window: %w", n.token.ID.EventID(), tinycloud.ErrUnauthorized)
			continue
		}
		s := f.search()
		can := f.hostable(s, n.token)
		f.want(s.missing)
		if !can {
			err = fmt.Errorf("host delegation %s: its issuer may not: %w", n.token.ID.EventID(), tinycloud.ErrUnauthorized)
			continue
		}
		r := ending(removals, n.token, host, h.Spots)
		if r == nil {
			return n.token, nil
		}
		err = removed(r)
	}
	if err == nil {
		err = fmt.Errorf("no host delegation to %s: %w", host, tinycloud.ErrUnauthorized)
	}
	return nil, err
}

// Importer reports whether a host may vouch, with an entry of a given time, for a history it took over:
// a host delegation to its key that has not expired then stands anywhere in the Space. Where it stands,
// and when it begins, does not matter: it may follow what it lets in.
// It must survive the removals that end that delegation; spots are those of the imported epoch.
func (f *Facts) Importer(host hostlog.Key, at time.Time, spots []Spot) error {
	return f.importer(host, at, spots, f.removals)
}

// AbleImporter is Importer as if no host had been removed.
func (f *Facts) AbleImporter(host hostlog.Key, at time.Time) error {
	return f.importer(host, at, nil, nil)
}

func (f *Facts) importer(host hostlog.Key, at time.Time, spots []Spot, removals []*Removal) error {
	err := fmt.Errorf("no host delegation to %s, who imported it: %w", host, tinycloud.ErrUnauthorized)
	for _, n := range f.hosts[host] {
		if !n.token.Expires.IsZero() && at.After(n.token.Expires) {
			continue
		}
		s := f.search()
		can := f.hostable(s, n.token)
		f.want(s.missing)
		if !can {
			continue
		}
		r := ending(removals, n.token, host, spots)
		if r == nil {
			return nil
		}
		err = removed(r)
	}
	f.waiting[host] = struct{}{}
	return err
}

// ending returns a removal that ends a delegation and that an entry of its host does not survive.
func ending(removals []*Removal, d *token.Token, host hostlog.Key, spots []Spot) *Removal {
	for _, r := range removals {
		if r.ends[d.ID] && !r.Survives(host, spots) {
			return r
		}
	}
	return nil
}

func removed(r *Removal) error {
	return fmt.Errorf("its host was removed by %s: %w", r.Revocation.ID.EventID(), tinycloud.ErrUnauthorized)
}

func (f *Facts) hostable(s *Search, t *token.Token) bool {
	for _, c := range t.Caps {
		if c.Ability == token.AbilityHost && c.Resource.Space() == f.space && c.Resource.Bare() && s.Justified(t, c) {
			return true
		}
	}
	return false
}

// Hosts calls yield for each host delegation of the set that its issuer could make.
func (f *Facts) Hosts(yield func(hostlog.Key, *token.Token) bool) {
	for host, ns := range f.hosts {
		for _, n := range ns {
			if f.hostable(f.search(), n.token) && !yield(host, n.token) {
				return
			}
		}
	}
}

// HostedBy calls yield for those of [Facts.Hosts] that are of one host.
func (f *Facts) HostedBy(host hostlog.Key, yield func(*token.Token) bool) {
	for _, n := range f.hosts[host] {
		if f.hostable(f.search(), n.token) && !yield(n.token) {
			return
		}
	}
}

// Delegated reports why a delegation of the set grants nothing in the Space, nil when it holds.
func (f *Facts) Delegated(t *token.Token) error {
	s := NewSearch(f.Delegation)
	for _, c := range t.Caps {
		if c.Resource.Space() == f.space && !s.Justified(t, c) {
			return f.refused(s, c)
		}
	}
	f.want(s.missing)
	return nil
}

func (f *Facts) refused(s *Search, c recap.Capability) error {
	f.want(s.missing)
	switch {
	case s.looks < 0:
		return fmt.Errorf("%s / %s is not covered by the %d delegations that are looked at: %w", c.Resource, c.Ability, MaxLooks, tinycloud.ErrUnauthorized)
	case len(s.missing) > 0:
		return fmt.Errorf("missing %s: %w", s.missing[0].EventID(), tinycloud.ErrUnauthorized)
	case !s.revoked.IsZero():
		return fmt.Errorf("revoked %s: %w", s.revoked.EventID(), tinycloud.ErrUnauthorized)
	}
	return fmt.Errorf("%s / %s is not covered: %w", c.Resource, c.Ability, tinycloud.ErrUnauthorized)
}

// Invoked judges an invocation with its operations, at the times of its epoch's valid entries. The
// error says why it is void.
func (f *Facts) Invoked(t *token.Token, ops []Asked, times []time.Time, h Here) error {
	err := fmt.Errorf("outside its window: %w", tinycloud.ErrUnauthorized)
	for _, at := range times {
		if !t.ValidAt(at, Slack) {
			continue
		}
		if err = f.allowed(t, ops, at, h); err == nil {
			return nil
		}
	}
	return err
}

func (f *Facts) allowed(t *token.Token, ops []Asked, at time.Time, h Here) error {
	s := NewSearch(f.Delegation)
	s.at, s.slack = at, Slack
	s.live = func(id tinycloud.Hash) bool {
		_, revoked := f.Revoked(id, h)
		return !revoked
	}
	for _, op := range ops {
		err := fmt.Errorf("operation on %q was not invoked: %w", op.Path, tinycloud.ErrUnauthorized)
		for _, c := range t.Caps {
			if !op.In(f.space, c) {
				continue
			}
			if s.Justified(t, c) {
				err = nil
			} else {
				err = f.refused(s, c)
			}
			if op.Whole && err != nil || !op.Whole && (err == nil || op.Ability != "") {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	f.want(s.missing)
	return nil
}

// Asked is what an operation in a Space needs its token to ask for.
type Asked struct {
	Service string
	Path    string // the operation's subject
	Ability string // canonical; "": any, of an operation that this release can't read
	Whole   bool   // all that the token asks for on the subject counts, and it needs the right to all of it
	Root    bool   // a resource of the service without a path, or with an empty one, is the subject too
}

// In reports whether a capability asks for that.
func (a Asked) In(space tinycloud.SpaceID, c recap.Capability) bool {
	path, ok := c.Resource.Path()
	if a.Root && (c.Resource.Bare() || ok && path == "") {
		path, ok = a.Path, true
	}
	return ok && path == a.Path && c.Resource.Space() == space && c.Resource.Service() == a.Service &&
		(a.Ability == "" || a.Whole || canonicalAbility(c.Ability) == a.Ability)
}
