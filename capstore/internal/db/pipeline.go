package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"reflect"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
)

// sendPostgres sends statements as a pipeline: none runs behind one that failed.
func sendPostgres(ctx context.Context, conn *sql.Conn, all []statement, w *watcher) error {
	var failed error // kept apart: database/sql judges a connection by what Raw returns
	err := conn.Raw(func(raw any) error {
		c, ok := raw.(*stdlib.Conn)
		if !ok {
			return driver.ErrBadConn
		}
		b := &pgx.Batch{}
		for _, st := range all {
			b.Queue(st.text, st.args...)
		}
		answers := c.Conn().SendBatch(ctx, b)
		failed = readAnswers(answers, all, c.Conn().TypeMap(), w)
		if err := answers.Close(); failed == nil {
			failed = Error(err)
		}
		return nil
	})
	if failed != nil {
		return failed
	}
	return Error(err)
}

func readAnswers(answers pgx.BatchResults, all []statement, types *pgtype.Map, w *watcher) error {
	for _, st := range all {
		if st.rows == nil {
			if _, err := answers.Exec(); err != nil {
				return Error(err)
			}
			continue
		}
		rows, err := answers.Query()
		if err == nil {
			err = readAnswer(rows, types, w, st.rows)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readAnswer(rows pgx.Rows, types *pgtype.Map, w *watcher, f func(Scan) error) error {
	defer rows.Close()
	for {
		if more, err := w.next(rows); !more {
			return err
		}
		row, err := decodeRow(types, rows)
		if err != nil {
			return Error(err)
		}
		if err := f(row.Scan); err != nil {
			return err
		}
	}
}

// Row is one of an answer, its columns as a driver gives them.
type Row []any

// decodeRow reads a row as pgx's driver of database/sql does, for the types that are in the schema.
func decodeRow(types *pgtype.Map, rows pgx.Rows) (Row, error) {
	raw, fields := rows.RawValues(), rows.FieldDescriptions()
	out := make(Row, len(raw))
	for i, b := range raw {
		if b == nil {
			continue
		}
		oid, format := fields[i].DataTypeOID, fields[i].Format
		var err error
		switch oid {
		case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
			out[i], err = decode[int64](types, oid, format, b)
		case pgtype.ByteaOID:
			out[i], err = decode[[]byte](types, oid, format, b)
		case pgtype.BoolOID:
			out[i], err = decode[bool](types, oid, format, b)
		default:
			out[i], err = decode[string](types, oid, format, b)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func decode[T any](types *pgtype.Map, oid uint32, format int16, b []byte) (v T, err error) {
	err = types.Scan(oid, format, b, &v)
	return v, err
}

// ScanRow reads a row of some columns to be scanned later.
func ScanRow(scan Scan, columns int) (Row, error) {
	r, dest := make(Row, columns), make([]any, columns)
	for i := range r {
		dest[i] = &r[i]
	}
	return r, scan(dest...)
}

// Scan is [Scan] of a row.
func (r Row) Scan(dest ...any) error {
	if len(dest) != len(r) {
		return fmt.Errorf("scan of %d columns into %d", len(r), len(dest))
	}
	for i, d := range dest {
		if err := assign(d, r[i]); err != nil {
			return fmt.Errorf("scan of column %d: %w", i, err)
		}
	}
	return nil
}

// assign stores a column as database/sql would, for the types that queries are scanned into.
func assign(dest, v any) error {
	switch d := dest.(type) {
	case *any:
		*d = v
		return nil
	case *[]byte:
		switch x := v.(type) {
		case nil:
			*d = nil
			return nil
		case []byte:
			*d = x
			return nil
		case string:
			*d = []byte(x)
			return nil
		}
	case *string:
		switch x := v.(type) {
		case []byte:
			*d = string(x)
			return nil
		case string:
			*d = x
			return nil
		}
	case *int64:
		if x, ok := v.(int64); ok {
			*d = x
			return nil
		}
	case *int:
		if x, ok := v.(int64); ok {
			*d = int(x)
			return nil
		}
	case *bool:
		if x, ok := v.(int64); ok && x>>1 == 0 {
			*d = x == 1
			return nil
		}
	case sql.Scanner:
		return d.Scan(v)
	}
	to := reflect.ValueOf(dest).Elem()
	if to.Kind() == reflect.Pointer {
		if v == nil {
			to.SetZero()
			return nil
		}
		to.Set(reflect.New(to.Type().Elem()))
		return assign(to.Interface(), v)
	}
	return assignNumber(to, v)
}

func assignNumber(to reflect.Value, v any) (err error) {
	var text string
	switch x := v.(type) {
	case int64:
		text = strconv.FormatInt(x, 10)
	case []byte:
		text = string(x)
	case string:
		text = x
	case bool:
		text = strconv.FormatBool(x)
	default:
		return fmt.Errorf("%T into %s", v, to.Type())
	}
	switch to.Kind() {
	case reflect.Bool:
		var b bool
		if b, err = strconv.ParseBool(text); err == nil {
			to.SetBool(b)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var n int64
		if n, err = strconv.ParseInt(text, 10, to.Type().Bits()); err == nil {
			to.SetInt(n)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var n uint64
		if n, err = strconv.ParseUint(text, 10, to.Type().Bits()); err == nil {
			to.SetUint(n)
		}
	case reflect.String:
		to.SetString(text)
	default:
		err = fmt.Errorf("%T into %s", v, to.Type())
	}
	return err
}
