package sql

import (
	"context"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Database is what is told of a database to the operator.
type Database struct {
	Name     string
	Writes   int64 // that count
	Failed   int64 // of these, those that did nothing; -1: not known, see [Service.Failed]
	Bytes    int64 // of all operations on it, and of what it takes here
	Position uint64
	Pending  int64 // operations that only a newer release can read
	Hash     tinycloud.Hash
	Doubled  []service.Doubled
	Differs  []string // hosts that made other content of the same writes
}

// Databases lists those of a Space that somebody wrote, at most limit of them. Position is how many writes the files here
// have run, as far as they are open. With a hash of their content they are brought up to date first, one after the other;
// one that is pending has none.
func (s *Service) Databases(ctx context.Context, store service.Store, space tinycloud.SpaceID, hash bool, limit int) ([]Database, error) {
	list, err := store.Subjects(ctx, space, request.Service, limit)
	if err != nil {
		return nil, err
	}
	out := make([]Database, 0, len(list))
	for _, x := range list {
		d := Database{Name: x.Name, Writes: x.Events, Failed: -1, Bytes: x.Bytes + x.Size, Pending: x.Pending, Doubled: x.Doubled, Differs: s.comparing.hosts(name{space, x.Name})}
		if hash && x.Pending == 0 && x.Events > 0 {
			if err := s.hash(ctx, store, space, &d); err != nil {
				return nil, err
			}
		} else {
			s.look(name{space, x.Name}, &d)
		}
		out = append(out, d)
	}
	return out, nil
}

// look adds what is known of an open database.
func (s *Service) look(of name, out *Database) {
	s.mu.Lock()
	d := s.open[of]
	s.mu.Unlock()
	if d == nil {
		return
	}
	if at := d.shown.Load(); at != nil {
		out.Position = at.pos
	}
	select {
	case d.turn <- struct{}{}: // who has it may take a while
		if d.since == 0 && d.aside.Load() == nil {
			out.Failed = int64(len(d.failed))
		}
		d.leave()
	default:
	}
}

// hash adds the hash of a database's content, and where it is.
func (s *Service) hash(ctx context.Context, store service.Store, space tinycloud.SpaceID, out *Database) error {
	d, err := s.acquire(name{space, out.Name})
	if err != nil {
		return err
	}
	defer s.release(d)
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.leave()
	if err := d.follow(ctx, store); err != nil {
		return err
	}
	if d.aside.Load() != nil { // the files are not where the history is
		out.Position, out.Hash, err = s.runAgain(ctx, store, d)
		return err
	}
	out.Position = d.at.pos
	if d.since == 0 {
		out.Failed = int64(len(d.failed))
	}
	out.Hash, err = d.db.Hash(ctx)
	return err
}
