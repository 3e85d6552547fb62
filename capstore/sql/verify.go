package sql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

var _ service.Verifier = (*Service)(nil)

// verified is how many databases of a Space are verified.
const verified = 1 << 20

// Verify runs all writes of each database that is materialised again, beside it, and compares the content. What differs is
// told, and made anew when it is used next.
func (s *Service) Verify(ctx context.Context, store service.Store, space tinycloud.SpaceID, damaged func(what, which string)) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil // nothing of it is in use
	}
	list, err := store.Subjects(ctx, space, request.Service, verified)
	if err != nil {
		return err
	}
	for _, x := range list {
		if x.Pending > 0 || x.Events == 0 {
			continue
		}
		d, err := s.acquire(name{space, x.Name})
		if err != nil {
			return err
		}
		what, err := s.verify(ctx, store, d)
		s.release(d)
		if err != nil {
			return fmt.Errorf("database %q: %w", x.Name, err)
		}
		if what != "" {
			damaged(what, fmt.Sprintf("%q", x.Name))
		}
	}
	return nil
}

// verify says what is wrong with a database, "" for nothing.
func (s *Service) verify(ctx context.Context, store service.Store, d *database) (what string, err error) {
	if err := d.enter(ctx); err != nil {
		return "", err
	}
	defer d.leave()
	if _, err := os.Stat(filepath.Join(d.dir, "base.db")); errors.Is(err, os.ErrNotExist) {
		return "", nil // it is made when it is used
	}
	if err := d.follow(ctx, store); err != nil {
		return "", err
	}
	was, at := d.contentSum(ctx)
	if errors.Is(at, engine.ErrLost) || errors.Is(at, errUnsound) {
		return "database whose files are damaged", d.anew(true)
	}
	if at != nil {
		return "", at
	}
	_, again, err := s.runAgain(ctx, store, d)
	if err != nil || again == was || d.aside.Load() != nil {
		return "", err
	}
	return "database with another content than its writes make", d.anew(true)
}

// errUnsound says that SQLite finds the file inconsistent.
var errUnsound = errors.New("integrity check failed")

// contentSum is the hash of the content of a database whose indexes fit its tables.
func (d *database) contentSum(ctx context.Context) (h tinycloud.Hash, err error) {
	check := &request.Request{Action: request.Query, Statements: []request.Statement{{SQL: "PRAGMA integrity_check"}}}
	answer, err := d.db.Query(ctx, check, gate.Admin, nil)
	if err != nil {
		return h, err
	}
	if string(answer) != `{"columns":["integrity_check"],"rowCount":1,"rows":[["ok"]]}` {
		return h, errUnsound
	}
	return d.db.Hash(ctx)
}

// runAgain is the hash of the content that the writes of a database make, and how many they are.
func (s *Service) runAgain(ctx context.Context, store service.Store, d *database) (pos uint64, h tinycloud.Hash, err error) {
	err = s.beside(ctx, store, d, nil, func(x *database) (err error) {
		pos = x.at.pos
		h, err = x.db.Hash(ctx)
		return err
	})
	return pos, h, err
}
