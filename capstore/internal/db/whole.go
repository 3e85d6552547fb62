package db

import (
	"context"
	"errors"
	"math"
	"slices"
)

// A transaction whose answers its writer knows beforehand is sent to a server whole, in one round trip: BEGIN, questions that
// fail where the writer was wrong, all that it writes, what takes the lock of the one who writes, COMMIT. Numbers that the
// server gives in it are known afterwards alone, so that what it writes has stand-ins for them.

// Stand-ins for numbers that the server gives in a transaction that is sent whole.
const (
	FirstGiven    = int64(1) << 62 // the first number of an epoch; those that follow stand for those that follow
	OwnGeneration = math.MaxInt64  // the generation of the transaction
)

// givenBytes is a number of a [RowIDs] that may be a stand-in.
type givenBytes int64

// ErrAsks is why something was not sent whole: it has to know an answer first.
var ErrAsks = errors.New("the database has to be asked")

// Whole is a transaction that is sent whole, but for what was kept back for it.
type Whole struct {
	Rows  Query       // that locks the rows that others may change, in one order
	Given int         // how many numbers of epochs it has
	First *int64      // is set to the first of these
	Check []Condition // that do not hold where the writer was wrong, about those rows
	// Under the lock of the one who writes: its generation, that others wrote nothing that they should not have, and what else is asked.
	Generation *int64
	CheckLate  Condition
	Ask        []Query
}

// MostWhole is how many bytes a transaction that is sent whole is better kept to, see [Conn.Kept]. At twice that [ErrAsks] is why it
// is not: a server takes packets of some times as much.
const MostWhole = maxKept

// Kept is how many bytes are kept back, about.
func (c *Conn) Kept() int { return c.keptSize }

// Suppose begins a transaction that is sent whole, or not at all: nothing may be asked in it.
func (c *Conn) Suppose() {
	c.forget()
	c.begun, c.supposes = false, true
}

// Locked has what is kept back from now on come behind [Whole.Lock].
func (c *Conn) Locked() {
	c.locked = len(c.kept)
	clear(c.open)
}

// SendWhole ends what [Conn.Suppose] began: the transaction is sent and committed. After an error nobody knows whether it is
// durable, but when the server refused it, see [Refused]: then [Conn.Rollback] has to follow.
func (c *Conn) SendWhole(ctx context.Context, w Whole) error {
	c.supposes = false
	early, late := c.stood(c.kept[:c.locked], w.Given), c.stood(c.kept[c.locked:], w.Given)
	c.forget()
	queries, behind := slices.Concat(c.d.nextGeneration(w), c.d.checked(w.CheckLate), w.Ask, c.giving(w), c.d.checked(w.Check...)), []Query(nil)
	if c.d.Alone != "" {
		queries, behind = c.d.beside(w)
	}
	first, err := c.statements(queries)
	if err != nil {
		return err
	}
	last, err := c.statements(behind)
	if err != nil {
		return err
	}
	all := slices.Concat([]statement{{text: "BEGIN"}}, first, early, last, late)
	if c.d.keepGiven != "" && w.Given > 0 {
		all = append(all, statement{text: c.d.keepGiven, args: []any{int64(w.Given)}})
	}
	c.begun = true
	return c.transmit(ctx, append(all, statement{text: "COMMIT"}))
}

// giving are queries by which the server gives the numbers, where transactions come one after another.
func (c *Conn) giving(w Whole) []Query {
	if w.Given == 0 {
		return nil
	}
	return []Query{{Text: c.d.beforeGiven, Row: func(scan Scan) error {
		err := scan(w.First)
		*w.First++
		return err
	}}}
}

// nextGeneration are queries that take the lock of the one who writes, and count the generation.
func (d Dialect) nextGeneration(w Whole) []Query {
	tell := func(scan Scan) error { return scan(w.Generation) }
	count := Query{Text: "UPDATE node SET generation = generation + 1 WHERE id = 1"}
	if d.returning() {
		count.Text, count.Row = count.Text+" RETURNING generation", tell
		return []Query{count}
	}
	return []Query{count, {Text: "SELECT " + d.ownGeneration + " := generation FROM node WHERE id = 1", Row: tell}}
}
