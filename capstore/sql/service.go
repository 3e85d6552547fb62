package sql

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// Default is the database of a resource without a path.
const Default = "default"

// Options configure a [Service].
type Options struct {
	// Dir is where databases are materialised. "", or if another process has it: somewhere for as long as the service is open.
	Dir  string
	Open int          // databases kept open; 0 for 64
	Log  *slog.Logger // nil: none
	// Idle is for how long a database stays open that nobody uses, while the service follows the history; 0 for ten
	// minutes: to open it again, all that is known of its place in the history is found anew.
	Idle time.Duration
	// Wait is how long a replay may be estimated to take that requests wait for; a longer one is done on a copy. 0 for 1 s.
	Wait time.Duration

	Newer map[uint64]engine.Rules // that this release doesn't have; for tests of the next
}

// Service is SQL databases as the history knows them, and as clients do. It is safe for concurrent use.
type Service struct {
	o       Options
	metrics *metrics

	mu     sync.Mutex
	open   map[name]*database // guarded by mu
	clock  uint64             // guarded by mu; of uses
	empty  *engine.DB         // guarded by mu; the answer for databases that nobody wrote; nil until needed
	closed bool               // guarded by mu
	root   string             // guarded by mu; Options.Dir or what stands for it; "" until needed
	lock   *flock.Flock       // guarded by mu; of root; nil: it is temporary

	replaying chan struct{} // databases made anew beside the others
	news      news
	comparing *comparing
}

var (
	_ service.Whole     = (*Service)(nil)
	_ service.Follower  = (*Service)(nil)
	_ service.Collector = (*Service)(nil)
)

// New returns the service. Its owner closes it when nobody uses it any more.
func New(o Options) *Service {
	if o.Open == 0 {
		o.Open = 64
	}
	if o.Idle == 0 {
		o.Idle = 10 * time.Minute
	}
	if o.Wait == 0 {
		o.Wait = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{
		o: o, metrics: newMetrics(), open: map[name]*database{}, replaying: make(chan struct{}, 1), news: news{given: wait.NewSignal()},
		comparing: newComparing(),
	}
}

// Name implements [service.Service], as do the following.
func (*Service) Name() string { return request.Service }

// Version is the greatest version of rules that this host knows.
func (s *Service) Version() uint64 {
	newest := uint64(engine.Newest)
	for v := range s.o.Newer {
		newest = max(newest, v)
	}
	return newest
}

// Mutates is true of abilities that let write; what a request makes of them is seen when it is carried out.
func (*Service) Mutates(ability string) bool {
	var h gate.Held
	return strings.HasPrefix(ability, prefix) && h.Hold(ability) && h&^gate.Reads != 0
}

const prefix = "tinycloud.sql/"

// Takes implements [service.Whole].
func (*Service) Takes(ability string) bool { return strings.HasPrefix(ability, prefix) }

// Read takes what can never be read for an operation that does nothing: else it would keep a database waiting for ever.
func (s *Service) Read(subject string, b []byte) (service.Op, error) {
	if _, err := request.ReadPart(subject, b, s.Version()); errors.Is(err, request.ErrNewer) {
		return service.Op{}, service.ErrNewer
	}
	return service.Op{Ability: prefix + "write", Whole: true, Root: subject == Default}, nil
}

func (s *Service) Apply(tx service.Tx, p service.Placed, elsewhere bool) (bool, error) {
	if elsewhere {
		return s.fold(tx, p.Subject, &p)
	}
	st, err := stateIn(tx, p.Subject)
	if err != nil {
		return false, err
	}
	st.add(digestOf(spotOf(p)))
	return true, setState(tx, p.Subject, st)
}

func (s *Service) Fold(tx service.Tx, subject string) error {
	_, err := s.fold(tx, subject, nil)
	return err
}

// fold finds which place of each event counts. It reports whether the one that is asked about does.
func (*Service) fold(tx service.Tx, subject string, about *service.Placed) (counts bool, err error) {
	all, err := tx.Candidates(subject)
	if err != nil {
		return false, err
	}
	count, err := counting(tx, all)
	if err != nil {
		return false, err
	}
	var st state
	for _, p := range all {
		is := count[p.Event] == placeOf(p)
		if is {
			st.add(digestOf(spotOf(p)))
		}
		if about != nil && p.Is(*about) {
			counts = is
		}
		if is != p.Valid {
			if err := tx.SetValid(p, is); err != nil {
				return false, err
			}
		}
	}
	return counts, setState(tx, subject, st)
}

// Stands leaves it to [Service.Fold]: an operation is valid if its event is, and no other place of that counts.
func (*Service) Stands(_ service.Tx, _ service.Placed, was bool) (bool, error) { return was, nil }

// Aside implements [service.Service]: an operation names nothing of the history.
func (*Service) Aside(_ service.Tx, _ string, b []byte) ([]byte, error) { return b, nil }
