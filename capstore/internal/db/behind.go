package db

import (
	"context"
	"database/sql/driver"
	"math"
)

// On SQLite inserts that are kept back run behind the one who writes: while it goes on to judge what comes next, a goroutine
// has them done, as soon as there are some. Everything else that is done with the connection waits for that first, so that
// statements see what was inserted before them. What fails of them fails what comes next, and the transaction.

const (
	// behindFrom is how many rows are worth a goroutine.
	behindFrom = 96
	// wholeArg is how many bytes of an argument are copied while it waits. Whatever is longer is a value, a token or an
	// epoch, which nobody changes.
	wholeArg = 64
)

// later has what is kept back run behind the caller, unless others are.
func (c *Conn) later(ctx context.Context) error {
	if c.behind != nil {
		select {
		case err := <-c.behind:
			if err := c.ran(err); err != nil {
				return err
			}
		default:
			if c.keptSize <= maxKept {
				return nil
			}
			if err := c.settle(); err != nil {
				return err
			}
		}
	}
	kept, done := c.kept, make(chan error, 1)
	c.forget()
	c.behind = done
	go func() { done <- c.run(ctx, kept) }()
	return nil
}

// settle waits for what runs behind.
func (c *Conn) settle() error {
	if c.behind == nil {
		return nil
	}
	return c.ran(<-c.behind)
}

// ran notes what came of what ran behind.
func (c *Conn) ran(err error) error {
	c.behind = nil
	if err != nil {
		c.lost = err
	}
	return c.lost
}

// keepRow keeps the row of an insert back on SQLite.
func (c *Conn) keepRow(ctx context.Context, i Insert, args []any) error {
	row := c.room.row(len(args))
	size := 0
	for n, a := range args {
		v, err := plainArg(a)
		if err != nil {
			return Error(err)
		}
		switch x := v.(type) {
		case []byte:
			if size += len(x); len(x) <= wholeArg && x != nil {
				v = c.room.clone(x)
			}
		case string:
			size += len(x)
		}
		row[n] = v
	}
	of := c.open[i.Into]
	if of == nil || of.insert != i {
		of = &inserts{insert: i}
		c.open[i.Into] = of
		c.kept = append(c.kept, statement{into: of})
	}
	of.rows = append(of.rows, row)
	c.keptSize += size
	c.rowBytes += size
	if c.keptRows++; c.keptRows < behindFrom {
		return nil
	}
	return c.later(ctx)
}

// room is memory for rows that are kept back, which come by thousands.
type room struct {
	args  []any
	bytes []byte
}

const (
	roomArgs  = 1 << 10
	roomBytes = 8 << 10
)

func (r *room) row(n int) []any {
	if len(r.args) < n {
		r.args = make([]any, max(n, roomArgs))
	}
	row := r.args[:n:n]
	r.args = r.args[n:]
	return row
}

// clone copies a few bytes.
func (r *room) clone(b []byte) []byte {
	if len(r.bytes) < len(b) {
		r.bytes = make([]byte, roomBytes)
	}
	out := r.bytes[:len(b):len(b)]
	r.bytes = r.bytes[len(b):]
	copy(out, b)
	return out
}

// plainArg makes an argument what drivers take.
func plainArg(a any) (driver.Value, error) {
	switch x := a.(type) {
	case nil, int64, []byte, string, bool:
		return x, nil
	case int:
		return int64(x), nil
	case uint64:
		if x <= math.MaxInt64 {
			return int64(x), nil
		}
	}
	return driver.DefaultParameterConverter.ConvertValue(a)
}
