package db

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// On PostgreSQL transactions that are sent whole run side by side: each takes the lock of the one who writes last, when all is
// done but to tell of it.
//
//   - They share a lock, the fence, which a transaction that asks has for itself: it meets none that is half done.
//   - Rows that others may change, of Spaces, are locked before all else, ascending, so that nobody waits for one who waits
//     for him.
//   - Numbers of epochs rise in the order of commits, as they do where transactions come one after another. So a transaction
//     waits, before it takes the last lock, for the one that was given numbers before it. Where that was given up while an
//     earlier one was still at work, the order is not kept: who comes too late by it fails, and is tried again.
//
// Numbers have to follow each other, and whose were the last has to be known, so they are given under a lock of their own. It
// is given back at once, by the end of a savepoint: what a sequence was set to stays. All locks end with the transaction, so
// a proxy may stand between that gives connections to others.

// Advisory locks of PostgreSQL have two numbers of 32 bits.
const (
	fenceLock = 0x74630001 // its second number is 0
	givesLock = 0x74630002 // likewise
	rankLock  = 0x74630003 // the second number is that of a transaction
)

var (
	takeFence  = fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, 0)", fenceLock) // of a transaction that asks
	shareFence = fmt.Sprintf("SELECT pg_advisory_xact_lock_shared(%d, 0)", fenceLock)
	takeRank   = fmt.Sprintf(", pg_advisory_xact_lock(%d, CAST(? AS INTEGER))", rankLock)
	takeGives  = fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, 0)", givesLock)
	awaitRank  = fmt.Sprintf("SELECT pg_advisory_xact_lock_shared(%d, CAST(currval('rank_before') AS INTEGER))", rankLock)
)

const (
	giveNumbers = "setval('epochs_eid_seq', nextval('epochs_eid_seq') + CAST(? AS BIGINT) - 1)"
	// What this connection finds in rank_before is what it set.
	giveRank = "setval('rank_before', last_value), setval('last_rank', CAST(? AS BIGINT)) FROM last_rank"
)

// beside are queries that come before what a transaction writes, and those between that and what comes behind the last lock.
func (d Dialect) beside(w Whole) (before, behind []Query) {
	fence := Query{Text: shareFence}
	if w.Given == 0 {
		return slices.Concat([]Query{fence, w.Rows}, d.checked(w.Check...)), slices.Concat(d.nextGeneration(w), d.checked(w.CheckLate), w.Ask)
	}
	rank := 1 + rand.Int32N(1<<31-1)
	fence.Text, fence.Args = fence.Text+takeRank, []any{rank}
	before = []Query{
		fence, w.Rows,
		{Text: "SAVEPOINT giving"},
		{Text: takeGives},
		{Text: "SELECT " + giveNumbers + ", " + giveRank, Args: []any{w.Given, rank}, Row: func(scan Scan) error {
			var last, was, is int64
			err := scan(&last, &was, &is)
			*w.First = last - int64(w.Given) + 1
			return err
		}},
		{Text: "ROLLBACK TO SAVEPOINT giving"},
	}
	inOrder := Condition{Holds: "(SELECT max(eid) FROM epochs) = " + d.lastGiven}
	return slices.Concat(before, d.checked(w.Check...)), slices.Concat([]Query{{Text: awaitRank}}, d.nextGeneration(w), d.checked(w.CheckLate, inOrder), w.Ask)
}
