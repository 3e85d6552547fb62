package lite

import (
	"strings"
	"sync"

	sq "modernc.org/sqlite/lib"
)

// Actions that [Conn.Allow] is asked about; the rest is never allowed to anybody.
const (
	CreateIndex = sq.SQLITE_CREATE_INDEX
	CreateTable = sq.SQLITE_CREATE_TABLE
	CreateView  = sq.SQLITE_CREATE_VIEW
	Delete      = sq.SQLITE_DELETE
	DropIndex   = sq.SQLITE_DROP_INDEX
	DropTable   = sq.SQLITE_DROP_TABLE
	DropView    = sq.SQLITE_DROP_VIEW
	Insert      = sq.SQLITE_INSERT
	Pragma      = sq.SQLITE_PRAGMA
	Read        = sq.SQLITE_READ
	Select      = sq.SQLITE_SELECT
	Update      = sq.SQLITE_UPDATE
	AlterTable  = sq.SQLITE_ALTER_TABLE
	Reindex     = sq.SQLITE_REINDEX
	Function    = sq.SQLITE_FUNCTION
)

// Virtual are the names, in lower case, of the tables that are no part of a schema and that the engine has in every
// database. Those of pragmas come into being by being named, and are not among them.
var Virtual = sync.OnceValues(func() (map[string]bool, error) {
	c, err := Open(":memory:", Create, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	all := map[string]bool{}
	err = c.Each("SELECT name FROM pragma_module_list", nil, func(s *Stmt) error {
		all[strings.ToLower(s.Column(0).(string))] = true
		return nil
	})
	return all, err
})
