package capstore

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// maxReplays bounds the tokens remembered at once: at 16 shards some 100 MB.
const maxReplays = 2 << 20

// replays remembers the invocations that were used, for their life. Mutations are remembered by the
// history itself, for ever; here are the reads. When there is no room for all of them some are forgotten, whichever: whoever
// fills the table forgets his own. To read once more what one may read harms less than to be refused.
type replays struct {
	saves  bool         // to the database, from time to time; set before use
	seed   maphash.Seed // of this process: nobody can choose his shard
	most   int          // tokens of a shard; 0 means a share of maxReplays
	shards [16]replayShard
}

type replayShard struct {
	sync.Mutex
	until   map[[16]byte]int64 // unix seconds
	unsaved []replay
	swept   int64
}

func newReplays() replays { return replays{seed: maphash.MakeSeed()} }

func (r *replays) shard(key [16]byte) *replayShard {
	return &r.shards[maphash.Bytes(r.seed, key[:])%uint64(len(r.shards))]
}

// replay is a used token as the database remembers it.
type replay struct {
	id    [17]byte // the first 16 bytes of its hash, and four bits of the next one
	until int64    // unix seconds
}

// use remembers a token until it has expired. It reports false when the token was used before.
func (r *replays) use(id tinycloud.Hash, until, now int64) bool {
	key, most := [16]byte(id[:16]), r.most
	if most == 0 {
		most = maxReplays / len(r.shards)
	}
	sh := r.shard(key)
	sh.Lock()
	defer sh.Unlock()
	if sh.until == nil {
		sh.until = map[[16]byte]int64{}
	}
	if old, ok := sh.until[key]; ok && old >= now {
		return false
	}
	if now-sh.swept >= 30 {
		sh.swept = now
		sh.unsaved = slices.DeleteFunc(sh.unsaved, func(p replay) bool { return p.until < now })
		for k, end := range sh.until {
			if end < now {
				delete(sh.until, k)
			}
		}
	}
	for k := range sh.until { // in no order
		if len(sh.until) < most {
			break
		}
		delete(sh.until, k)
	}
	sh.until[key] = until
	if r.saves && len(sh.unsaved) < most {
		sh.unsaved = append(sh.unsaved, replay{[17]byte(append(key[:], id[16]&15)), until})
	}
	return true
}

// take returns tokens that are not saved yet, so many at most.
func (r *replays) take(most int) (out []replay) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.Lock()
		n := min(len(sh.unsaved), most-len(out))
		out = append(out, sh.unsaved[:n]...)
		if sh.unsaved = sh.unsaved[n:]; len(sh.unsaved) == 0 {
			sh.unsaved = nil
		}
		sh.Unlock()
	}
	return out
}

// untake has tokens saved another time.
func (r *replays) untake(batch []replay) {
	for _, p := range batch {
		sh := r.shard([16]byte(p.id[:16]))
		sh.Lock()
		sh.unsaved = append(sh.unsaved, p)
		sh.Unlock()
	}
}

func (r *replays) forget(id tinycloud.Hash) {
	sh := r.shard([16]byte(id[:16]))
	sh.Lock()
	defer sh.Unlock()
	delete(sh.until, [16]byte(id[:16]))
}

func (r *replays) used(id tinycloud.Hash, now int64) bool {
	sh := r.shard([16]byte(id[:16]))
	sh.Lock()
	defer sh.Unlock()
	old, ok := sh.until[[16]byte(id[:16])]
	return ok && old >= now
}

// replayGrace is how long beyond its expiry a token stays remembered.
const replayGrace = 60 * time.Second

// Burn remembers the token of a read. It is a refusal of class [tinycloud.ErrConflict] when the token
// was used before.
func (s *Store) Burn(ctx context.Context, t *Token) error {
	now := s.o.Now()
	if !s.seen.use(t.ID, t.Expires.Add(replayGrace).Unix(), now.Unix()) {
		return errReplayed()
	}
	if !s.db.Shared {
		return nil
	}
	// Another process may have served it.
	err := s.remember(ctx, append(t.ID[:16:16], t.ID[16]&15), t.Expires.Add(replayGrace).Unix())
	if err != nil && !errors.Is(err, tinycloud.ErrConflict) {
		s.seen.forget(t.ID) // it may be tried again
	}
	return err
}

// intoReplays remembers a used token, see [replay].
var intoReplays = db.Insert{Into: "replays", Columns: "id expires", Key: "id"}

func errReplayed() error { return tinycloud.Refuse(tinycloud.ErrConflict, "duplicate invocation") }

// replayBatch is how many tokens one transaction saves or forgets: others wait for the writer meanwhile.
const replayBatch = 500

// SaveReplays writes the reads remembered in memory to the database, so that a restart does not forget
// them, and forgets those that have expired. The node calls it now and then and before it closes.
func (s *Store) SaveReplays(ctx context.Context) error {
	for {
		batch := s.seen.take(replayBatch)
		if len(batch) == 0 {
			return s.expireReplays(ctx)
		}
		err := s.do(ctx, func(t *tx) error {
			for _, p := range batch {
				if err := t.add(intoReplays, p.id[:], p.until); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.seen.untake(batch)
			return err
		}
	}
}

func (s *Store) expireReplays(ctx context.Context) error {
	now := s.o.Now().Unix()
	for {
		var ids [][]byte
		err := s.db.Read.Each(ctx, func(scan db.Scan) error {
			var id []byte
			err := scan(&id)
			ids = append(ids, id)
			return err
		}, "SELECT id FROM replays WHERE expires < ? ORDER BY expires LIMIT ?", now, replayBatch)
		if err != nil || len(ids) == 0 {
			return err
		}
		err = s.do(ctx, func(t *tx) error {
			for _, id := range ids {
				if err := t.exec("DELETE FROM replays WHERE id = ?", id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// loadReplays reads what [Store.SaveReplays] wrote.
func (s *Store) loadReplays(ctx context.Context) error {
	now := s.o.Now().Unix()
	return s.db.Read.Each(ctx, func(scan db.Scan) error {
		var id []byte
		var until int64
		if err := scan(&id, &until); err != nil {
			return err
		}
		var h tinycloud.Hash
		copy(h[:], id) // 16 bytes of the hash, and some bits
		s.seen.use(h, until, now)
		return nil
	}, "SELECT id, expires FROM replays WHERE expires >= ?", now)
}
