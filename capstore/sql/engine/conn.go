package engine

import (
	"errors"
	"fmt"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
)

// maxLength is how long any value may be.
const maxLength = 1 << 20

// pinned is the state of a connection that decides what statements do, the same on all.
var pinned = []string{
	"PRAGMA page_size=4096", "PRAGMA encoding='UTF-8'", "PRAGMA auto_vacuum=0", "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0",
	"PRAGMA synchronous=OFF", "PRAGMA foreign_keys=ON", "PRAGMA defer_foreign_keys=OFF", "PRAGMA recursive_triggers=OFF", "PRAGMA cache_size=-2000", "PRAGMA temp_store=DEFAULT",
	"PRAGMA automatic_index=ON", "PRAGMA case_sensitive_like=OFF", "PRAGMA secure_delete=OFF", "PRAGMA reverse_unordered_selects=OFF", "PRAGMA ignore_check_constraints=OFF",
	"PRAGMA cell_size_check=OFF", "PRAGMA mmap_size=0", "PRAGMA legacy_alter_table=OFF", "PRAGMA threads=0", "PRAGMA journal_size_limit=-1",
}

// limits are the same on all connections.
var limits = map[int]int{
	lite.LimitLength: maxLength, lite.LimitSQL: 1_000_000, lite.LimitColumns: 2000, lite.LimitDepth: 1000, lite.LimitCompound: 500, lite.LimitProgram: 1_000_000,
	lite.LimitArguments: 127, lite.LimitAttached: 0, lite.LimitPattern: 256, lite.LimitParameters: 32766, lite.LimitTriggers: 100,
}

// connect opens a file with all that is pinned, and checks what it reads of it. One that does not write keeps the engine's
// own functions and the machine's time.
func connect(path string, mode lite.Mode, writes bool, check func(page uint32, b []byte) bool) (*lite.Conn, error) {
	clock := lite.NewClock()
	clock.Check = check
	c, err := lite.Open(path, mode, clock)
	if err != nil {
		return nil, err
	}
	for _, s := range []struct {
		which int
		on    bool
	}{
		{lite.NoCheckpoint, true},
		{lite.Defensive, true},
		{lite.TrustedSchema, false},
		{lite.StablePlans, true},
		{lite.QuotedTextDDL, true},
		{lite.QuotedTextDML, true},
		{lite.ForeignKeys, true},
		{lite.TriggersEnabled, true},
		{lite.Views, true},
	} {
		err = errors.Join(err, c.Switch(s.which, s.on))
	}
	for _, p := range pinned {
		if err == nil {
			if err = c.Script(p); err != nil {
				err = fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	for which, n := range limits {
		c.Limit(which, n)
	}
	if err == nil {
		err = c.KeepWAL()
	}
	if err == nil && writes {
		c.CountFrames()
		clock.Logged = c.Frames
		c.CountRows()
		err = errors.Join(c.CountBytes(), c.PinRandom())
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
