package sql

import (
	"bytes"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// A token may stand in several places, and not with the same request everywhere: a host that lies can put an old one
// again. Which place counts follows from the places, their requests and who says that they stand, never from what the
// requests do. Source: docs/replication.md, "Services".

// placement is an event at one of its places, with its operations on a database in their order.
type placement struct {
	at  service.Spot // without number
	ops []service.Placed
}

func placeOf(p service.Placed) service.Spot { return service.Spot{Written: p.Written, At: p.At} }

// counting finds the place of each event that counts.
func counting(tx service.Tx, all []service.Placed) (map[tinycloud.Hash]service.Spot, error) {
	count, several := map[tinycloud.Hash]service.Spot{}, map[tinycloud.Hash][]placement{}
	for _, p := range all {
		at := placeOf(p)
		least, ok := count[p.Event]
		if ok && least != at {
			several[p.Event] = nil
		}
		if !ok || at.Compare(least) < 0 {
			count[p.Event] = at
		}
	}
	if len(several) == 0 {
		return count, nil
	}
	for _, p := range all {
		list, ok := several[p.Event]
		if !ok {
			continue
		}
		at := placeOf(p)
		i := slices.IndexFunc(list, func(x placement) bool { return x.at == at })
		if i < 0 {
			i, list = len(list), append(list, placement{at: at})
		}
		list[i].ops = append(list[i].ops, p)
		several[p.Event] = list
	}
	for event, list := range several {
		at, err := countingOf(tx, list)
		if err != nil {
			return nil, err
		}
		count[event] = at
	}
	return count, nil
}

// countingOf is the place of an event that counts: the least, but where requests differ one that a host says which was not
// removed goes before those that only removed hosts say.
func countingOf(tx service.Tx, list []placement) (service.Spot, error) {
	slices.SortFunc(list, func(a, b placement) int { return a.at.Compare(b.at) })
	for _, x := range list {
		slices.SortFunc(x.ops, func(a, b service.Placed) int { return a.N - b.N })
	}
	first := -1 // of those that another host says
	var some bool
	for i, x := range list {
		ended, err := tx.Ended(x.ops[0])
		if err != nil {
			return service.Spot{}, err
		}
		some = some || ended
		if !ended && first < 0 {
			first = i
		}
	}
	if !some || first <= 0 {
		return list[0].at, nil
	}
	if same, err := sameRequests(tx, list); err != nil || same {
		return list[0].at, err
	}
	return list[first].at, nil
}

// sameRequests reports whether an event has the same operations in all places. It keeps those of one place in memory.
func sameRequests(tx service.Tx, list []placement) (bool, error) {
	var want [][]byte
	for i, x := range list {
		if i > 0 && len(x.ops) != len(want) {
			return false, nil
		}
		for k, p := range x.ops {
			b, err := tx.Bytes(p)
			switch {
			case err != nil:
				return false, err
			case i == 0:
				want = append(want, b)
			case !bytes.Equal(b, want[k]):
				return false, nil
			}
		}
	}
	return true, nil
}
