package db

import (
	"context"
	"database/sql"
	"fmt"
)

// While many rows come that go all over the indexes of SQLite, each transaction writes most of their pages again. So pages are
// kept in a larger cache, and go from the log to the file less often, and beside the one who writes: it would wait for two
// fsyncs each time. SQLite begins its log anew when all of it is in the file as a transaction begins. So once a checkpoint
// beside the writer is done, the writer makes another, which has little left to do.

const (
	// bulkCheckpoint is how many bytes of rows are committed before a checkpoint is worth its fsyncs.
	bulkCheckpoint = 16 << 20
	// bulkLog is how many pages the log has, with or without that, before the writer makes one.
	bulkLog  = 48_000
	pageSize = 4 << 10
)

// bulk is what there is to do with the log while many rows come.
type bulk struct {
	on    bool
	since int           // bytes of rows that were committed since the last checkpoint began
	done  chan struct{} // closed when the checkpoint beside the writer is made; nil: there is none
	read  *sql.DB
}

// Bulk says that many rows come, or that none did for a while. It is called between transactions. A server has its own ways.
func (c *Conn) Bulk(ctx context.Context, on bool) error {
	if c.d.Shared || c.bulk.on == on {
		return nil
	}
	c.bulk.on = on
	cache, log, file := writeCache, checkpointFrom, checkpointFrom*pageSize // the file of the log, once it begins anew
	if on {
		cache, log, file = bulkCache, bulkLog, -1
	}
	for _, p := range []string{fmt.Sprint("cache_size=-", cache), fmt.Sprint("wal_autocheckpoint=", log), fmt.Sprint("journal_size_limit=", file)} {
		if err := c.plain(ctx, "PRAGMA "+p); err != nil {
			return err
		}
	}
	if on {
		return nil
	}
	c.bulk.wait()
	c.bulk.since = 0
	for _, p := range []string{"shrink_memory", "wal_checkpoint(PASSIVE)"} {
		if err := c.plain(ctx, "PRAGMA "+p); err != nil {
			return err
		}
	}
	return nil
}

// committed makes checkpoints when they are due, after so many bytes of rows.
func (c *Conn) committed(ctx context.Context, bytes int) {
	b := &c.bulk
	if b.since += bytes; !b.on || b.since < bulkCheckpoint {
		return
	}
	if b.done == nil {
		done := make(chan struct{})
		b.done = done
		go func() {
			defer close(done)
			checkpoint(ctx, b.read)
		}()
		return
	}
	select {
	case <-b.done:
		b.done, b.since = nil, 0
		_ = c.plain(ctx, "PRAGMA wal_checkpoint(PASSIVE)") // what it could not do the next one does
	default:
	}
}

// checkpoint brings what is in the log to the file, as far as nobody is in the way.
func checkpoint(ctx context.Context, read *sql.DB) {
	_, _ = read.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)")
}

// wait waits for the checkpoint beside the writer.
func (b *bulk) wait() {
	if b.done != nil {
		<-b.done
		b.done = nil
	}
}
