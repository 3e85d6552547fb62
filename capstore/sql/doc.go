// Package sql is SQL databases that every host of a Space answers: a service beside key-value. [Service] is what the history
// and HTTP know; a database follows the history lazily, in files that may be deleted. Its parts, of which none
// knows the history, tokens, hosts or HTTP, are
//
//	request   what clients ask and are answered, and the form in which a request that writes stands in the history
//	gate      which statements may run: kinds, abilities, caveats and facts
//	engine    a database as what its operations make of it, in files that can go back and be made anew
//
// How they go together, for a request that was admitted:
//
//  1. [request.Parse] reads the body. A statement that a caveat names is looked up: [gate.Constrained.Resolve] for each
//     caveat of the chain, else [gate.Facts.Resolve]. An export asks [gate.Held.PermitExport] and [engine.DB.Export].
//  2. [gate.Check] says whether abilities and facts permit it, and whether it may write. One that doesn't is answered by
//     [engine.DB.Query].
//  3. One that may write follows what the history has got meanwhile ([engine.DB.Rewind], [engine.DB.Apply]), and is tried
//     within the bounds of admission ([engine.DB.Try]). If it failed or changed no page, it is answered, and nothing remains.
//  4. Else [request.Operation.Encode] makes the operations of its event. Others that wait are tried on top of it. Once their
//     operations are durable in the history, [engine.DB.Take] and [engine.DB.Commit] keep what was tried; what is not is taken
//     back.
//
// An operation of another host comes as parts, read by [request.ReadPart] and put together by [request.Join]; abilities,
// caveats and facts are those of its own token. [engine.Op.Key] has to name all of that, so that a digest tells whether what
// lies before a mark is the same; [engine.DB.Settle] finds the last such mark when a database is opened. [engine.ErrBroken]
// says to close it and open it again, [engine.ErrLost] and [engine.ErrGone] to make it anew from the history.
package sql
