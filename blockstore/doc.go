// Package blockstore keeps the values of Spaces in files or in an S3 bucket, by Space and BLAKE3 digest.
//
// A body is staged while it is hashed ([Store.Stage]) and then committed to a Space: written, fsynced,
// renamed into place, directory fsynced; or uploaded, in parts when it is longer than 16 MiB. A value is read
// whole ([Store.Open]) or, by peers, as blocks of at most 1 MiB ([Store.Blocks]). A value of more than 1 MiB
// that comes from peers is put together from its chunks ([Store.Assemble]), with progress that survives a
// restart.
//
// It is not the key-value state: it knows no key, no capability, no quota and no network. Bodies up to
// [Options.InlineLimit] need not come here at all: a [Stage] offers their bytes, and the caller keeps them
// in the transaction that names them.
//
// Invariants:
//   - A value under its final name is complete, and it was on stable storage before Commit, PutValue or
//     Finish returned nil. After an error nothing is left but what was there before.
//   - A value enters a Space only by upload or transfer in that Space; equal values of two Spaces are stored
//     twice, and no lookup crosses Spaces.
//   - What peers are given was hashed as it was read.
//   - Whether a value is there is asked where it is: a bucket may be shared with other processes, whose values are
//     indexed when a manifest is asked for or a block is not found.
//   - The chunk index holds nothing that the values don't: it is written without fsync, thrown away when it
//     cannot be opened, and brought up to date by [Store.Repair] after a crash.
//
// See docs/protocol.md, "Values", and docs/replication.md, "Values".
package blockstore
