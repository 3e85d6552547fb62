package lite

import sq "modernc.org/sqlite/lib"

// pager is what keeps the pages of the connection's file.
func (c *Conn) pager() *sq.TPager {
	db := at[sq.TDb](at[sq.Tsqlite3](c.db).FaDb)
	shared := at[sq.TBtree](db.FpBt).FpBt
	return at[sq.TPager](at[sq.TBtShared](shared).FpPager)
}

// Pages is how many pages the database has, in the transaction that is open.
func (c *Conn) Pages() int { return int(c.pager().FdbSize) }

// LimitPages sets how many pages the database may have.
func (c *Conn) LimitPages(n int) { c.pager().FmxPgno = uint32(n) }

// Copied is how many pages were copied because a savepoint needs them as they were: it has changed if a page was changed in
// between that was there when the savepoint began.
func (c *Conn) Copied() int { return int(c.pager().FnSubRec) }

// HideName has the connection say that its file has no name. It has to have read before.
func (c *Conn) HideName() { *at[byte](c.pager().FzFilename) = 0 }
