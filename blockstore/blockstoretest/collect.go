package blockstoretest

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// testCollect: what nobody holds and is old enough goes, all else stays.
func testCollect(t *testing.T, b *bench) {
	space, other := Space(t, "default"), Space(t, "other")
	needed, orphan := Body(1, 5000), Body(2, 1<<20+7)
	kept, lost := b.commit(space, needed), b.commit(space, orphan)
	b.commit(other, orphan)
	held := func(h tinycloud.Hash) (bool, error) { return h == kept, nil }
	if freed, err := b.Collect(t.Context(), space, time.Now().Add(-time.Hour), held); err != nil || freed.Values != 0 {
		t.Errorf("collected what was put just now: %+v %v", freed, err)
	}
	freed, err := b.Collect(t.Context(), space, time.Now().Add(time.Minute), held)
	if err != nil || freed.Values != 1 || freed.Bytes != int64(len(orphan)) {
		t.Errorf("freed %+v, %v", freed, err)
	}
	b.wantAbsent(space, lost)
	b.wantValue(space, needed)
	b.wantValue(other, orphan)
	b.commit(space, orphan)
	b.wantValue(space, orphan)
}
