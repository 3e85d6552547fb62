package capstore

import (
	"context"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// columnsOfSpaces selects the tables whose rows are of Spaces. Asking the database leaves out none, also of a later
// release: SQLite gives the number of a Space that is gone to the next one.
var columnsOfSpaces = map[string]string{
	"sqlite":   "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'sid'",
	"postgres": "SELECT table_name FROM information_schema.columns WHERE column_name = 'sid' AND table_schema = current_schema()",
	"mysql":    "SELECT table_name FROM information_schema.columns WHERE column_name = 'sid' AND table_schema = database()",
}

// Forget deletes all rows of a Space, hosted or imported; what owners delegated stays known. Values that are files are the
// caller's to delete. It is for a store that nothing else uses, and that is closed then: what is in memory is not told.
// The error is of class [tinycloud.ErrNotFound] when there is no such Space.
func (s *Store) Forget(ctx context.Context, id tinycloud.SpaceID) error {
	var tables []string
	err := s.db.Read.Each(ctx, func(scan db.Scan) error {
		var name string
		err := scan(&name)
		tables = append(tables, name)
		return err
	}, columnsOfSpaces[s.db.Name])
	if err != nil {
		return err
	}
	return s.do(ctx, func(t *tx) error {
		var sid int64
		if ok, err := t.one([]any{&sid}, "SELECT sid FROM spaces WHERE space = ?", id.String()); err != nil || !ok {
			if err == nil {
				err = fmt.Errorf("%s is not here: %w", id, tinycloud.ErrNotFound)
			}
			return err
		}
		// They name epochs alone, whose numbers are given again.
		if err := t.exec("DELETE FROM links WHERE child IN (SELECT eid FROM epochs WHERE sid = ?)", sid); err != nil {
			return fmt.Errorf("links: %w", err)
		}
		for _, name := range tables {
			if name == "commits" { // told to other processes, by numbers that go on
				continue
			}
			if err := t.exec("DELETE FROM "+name+" WHERE sid = ?", sid); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		for _, name := range []string{"asked_joins", "webhooks"} {
			if err := t.exec("DELETE FROM "+name+" WHERE space = ?", id.String()); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}
