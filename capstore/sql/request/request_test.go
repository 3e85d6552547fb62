package request_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

func one(sql string, params ...any) []request.Statement {
	return []request.Statement{{SQL: sql, Params: params}}
}

func TestParse(t *testing.T) {
	epoch := tinycloud.Sum([]byte("epoch"))
	for body, want := range map[string]request.Request{
		`{"action":"query","sql":"SELECT 1"}`:                                                              {Action: request.Query, Statements: one("SELECT 1")},
		` {"sql":"a","maxRows":5,"maxBytes":null,"params":[],"action":"query","x":{"y":[1]}} `:             {Action: request.Query, Statements: one("a"), MaxRows: 5},
		`{"action":"query","sql":"","params":[null,true,false,1,-9223372036854775808,2.0,-0.0,-0,1e3]}`:    {Action: request.Query, Statements: one("", nil, int64(1), int64(0), int64(1), int64(math.MinInt64), 2.0, math.Copysign(0, -1), math.Copysign(0, -1), 1000.0)},
		`{"action":"query","sql":"","params":[123456789012345678901234,"a\u0000\ud83d\ude00",[],[0,255]]}`: {Action: request.Query, Statements: one("", 123456789012345678901234.0, "a\x00😀", []byte{}, []byte{0, 255})},
		`{"action":"query","sql":"","params":[{"0":1,"1":255},{}]}`:                                        {Action: request.Query, Statements: one("", []byte{1, 255}, []byte{})},
		`{"action":"execute","sql":"a","params":["x"],"schema":["b","c"]}`:                                 {Action: request.Execute, Statements: one("a", "x"), Schema: []string{"b", "c"}},
		`{"action":"execute","sql":"a","schema":null}`:                                                     {Action: request.Execute, Statements: one("a")},
		`{"action":"batch","statements":[]}`:                                                               {Action: request.Batch, Statements: []request.Statement{}},
		`{"action":"batch","statements":[{"sql":"a"},{"sql":"b","params":[1]}]}`:                           {Action: request.Batch, Statements: append(one("a"), one("b", int64(1))...)},
		`{"action":"executeStatement","name":"n","params":["x"]}`:                                          {Action: request.ExecuteStatement, Name: "n", Statements: one("", "x")},
		`{"action":"execute_statement","name":"n"}`:                                                        {Action: request.ExecuteStatement, Name: "n", Statements: one("")},
		`{"action":"export","foo":1}`:                                                                      {Action: request.Export},
		fmt.Sprintf(`{"action":"outcome","epoch":%q}`, epoch.EpochID()):                                    {Action: request.Outcome, Epoch: epoch},
		`{"action":"query","sql":"SELECT \"\u00e9\" -- <&>","maxBytes":4194304}`:                           {Action: request.Query, Statements: one(`SELECT "é" -- <&>`), MaxBytes: 4194304},
	} {
		got, err := request.Parse([]byte(body))
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s\n is read as %#v, %v", body, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for body, want := range map[string]string{
		``: "EOF while parsing a value", `{`: "not JSON", `[]`: "expected an object with the member `action`", `"x"`: "invalid type: string",
		`{"sql":"SELECT 1"}`:                           "missing field `action`",
		`{"action":1}`:                                 "action: invalid type: integer `1`, expected a string",
		`{"action":"vacuum"}`:                          "action: unknown variant `vacuum`, expected one of `query`, `execute`, `batch`, `executeStatement`",
		`{"action":"query"}`:                           "missing field `sql`",
		`{"action":"query","sql":null}`:                "sql: invalid type: null, expected a string",
		`{"action":"query","sql":"","sql":""}`:         "duplicate field `sql`",
		`{"action":"query","action":"query","sql":""}`: "duplicate field `action`",
		`{"action":"query","sql":"","x":1,"x":2}`:      "duplicate field `x`",
		`{"action":"batch","statements":[{"sql":"a"},{"sql":"","sql":"b"}]}`: "statements[1]: duplicate field `sql`",
		`{"action":"query","sql":""} x`:                                      "not JSON",
		`{"action":"query","sql":"","params":null}`:                          "params: invalid type: null, expected a sequence",
		`{"action":"query","sql":"","params":{}}`:                            "params: invalid type: map, expected a sequence",
		`{"action":"query","sql":"","params":[0,[256]]}`:                     "params[1]: invalid value: integer `256`, expected u8",
		`{"action":"query","sql":"","params":[[1.5]]}`:                       "params[0]: invalid value: floating point `1.5`, expected u8",
		`{"action":"query","sql":"","params":[["a"]]}`:                       `params[0]: invalid type: string "a", expected u8`,
		`{"action":"query","sql":"","params":[{"a":1}]}`:                     "params[0]: invalid type: map, expected a SQL value (null, integer, real, string, or byte array)",
		`{"action":"query","sql":"","params":[{"0":1,"2":1}]}`:               "params[0]: invalid type: map",
		`{"action":"query","sql":"","params":[{"0":1,"0":2}]}`:               "params[0]: invalid type: map",
		`{"action":"query","sql":"","params":[9223372036854775808]}`:         "params[0]: SQLite integers must fit in signed 64 bits",
		`{"action":"query","sql":"","params":[1e400]}`:                       "params[0]: number out of range",
		`{"action":"query","sql":"","maxRows":0}`:                            "Invalid statement: maxRows must be between 1 and 1000",
		`{"action":"query","sql":"","maxRows":1001}`:                         "Invalid statement: maxRows must be between 1 and 1000",
		`{"action":"query","sql":"","maxRows":-1}`:                           "maxRows: invalid value: integer `-1`, expected usize",
		`{"action":"query","sql":"","maxRows":1.5}`:                          "maxRows: invalid type: floating point `1.5`, expected usize",
		`{"action":"query","sql":"","maxBytes":4194305}`:                     "Invalid statement: maxBytes must be between 1 and 4194304",
		`{"action":"batch"}`:                                                 "missing field `statements`",
		`{"action":"batch","statements":[1]}`:                                "statements[0]: invalid type: integer `1`",
		`{"action":"batch","statements":[{"params":[]}]}`:                    "statements[0]: missing field `sql`",
		`{"action":"execute","sql":"","schema":["a",1]}`:                     "schema[1]: invalid type: integer `1`, expected a string",
		`{"action":"executeStatement"}`:                                      "missing field `name`",
		`{"action":"outcome"}`:                                               "missing field `epoch`",
		`{"action":"outcome","epoch":"x"}`:                                   "epoch: ",
		"{\"action\":\"query\",\"sql\":\"\xff\"}":                            "not UTF-8",
		`{"action":"query","sql":"","params":` + strings.Repeat("[", 20_000): "not JSON",
	} {
		_, err := request.Parse([]byte(body))
		if !errors.Is(err, tinycloud.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s\n gives %v, not %q", body, err, want)
		}
	}
	if _, err := request.Parse(make([]byte, request.MaxBody+1)); !errors.Is(err, tinycloud.ErrTooLarge) {
		t.Errorf("a long body gives %v", err)
	}
}

func operations() []request.Operation {
	return []request.Operation{
		{Now: 1, Rules: 1, Request: request.Request{Action: request.Query, Statements: one("a", nil, int64(-1), int64(math.MinInt64), 2.0, math.Copysign(0, -1), "é", []byte{}, []byte{1})}},
		{Now: 0, Rules: 1, Request: request.Request{Action: request.Execute, Statements: one("a"), Schema: []string{"b", ""}}},
		{Now: 253402300799999, Rules: 1, Request: request.Request{Action: request.Batch, Statements: append(one("a"), one("b", int64(1<<40))...)}},
		{Now: 7, Rules: 1, Request: request.Request{Action: request.ExecuteStatement, Name: "", Statements: one("a")}},
		{Now: 7, Rules: 1, Request: request.Request{Action: request.Execute, Statements: one("a", strings.Repeat("x", 200_000))}},
	}
}

func read(t *testing.T, subject string, encoded [][]byte, most uint64) (request.Operation, error) {
	t.Helper()
	parts := make([]request.Part, len(encoded))
	for i, b := range encoded {
		var err error
		if parts[i], err = request.ReadPart(subject, b, most); err != nil {
			return request.Operation{}, err
		}
	}
	return request.Join(parts)
}

func TestCanonical(t *testing.T) {
	const subject = "xyz.app/notes"
	for _, o := range operations() {
		encoded, err := o.Encode(subject)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(t, subject, encoded, 1)
		if err != nil || !cmp.Equal(got, o) {
			t.Errorf("%v comes back as %v, %v", o, got, err)
		}
		for _, b := range encoded {
			if len(b) > request.MaxPart {
				t.Errorf("part of %d bytes", len(b))
			}
			if e, ok, err := dag.DecodeEnvelope(b); err != nil || !ok || e != (dag.Envelope{Service: "sql", Subject: subject}) {
				t.Errorf("envelope %v %v %v", e, ok, err)
			}
			if _, err := request.ReadPart(subject+"x", b, 1); !errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("read for another subject: %v", err)
			}
			if _, err := request.ReadPart(subject, b, 0); !errors.Is(err, request.ErrNewer) {
				t.Errorf("read under older rules: %v", err)
			}
			if _, err := request.ReadPart(subject, append(b, 0), 1); !errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("read with a byte more: %v", err)
			}
		}
		if _, err := read(t, subject, encoded[:len(encoded)-1], 1); err == nil {
			t.Error("read without its last part")
		}
	}
	big := request.Operation{Request: request.Request{Action: request.Execute, Statements: one("a", strings.Repeat("x", request.MaxBody))}}
	if _, err := big.Encode(subject); !errors.Is(err, tinycloud.ErrTooLarge) {
		t.Errorf("a long request: %v", err)
	}
	if _, err := big.Encode(strings.Repeat("x", request.MaxSubject+1)); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("a long path: %v", err)
	}
	for _, o := range []request.Operation{
		{Now: -1, Request: operations()[0].Request},
		{Now: 253402300800000, Request: operations()[0].Request},
		{Request: request.Request{Action: request.Export, Statements: one("a")}},
		{Request: request.Request{Action: request.Batch}},
		{Request: request.Request{Action: request.Query, Statements: one("a"), Schema: []string{"b"}}},
		{Request: request.Request{Action: "x", Statements: one("a")}},
		{Request: request.Request{Action: request.Execute, Statements: one("a"), Schema: []string{}}},
		{Request: request.Request{Action: request.Execute, Statements: one("a", math.Inf(1))}},
	} {
		encoded, err := o.Encode(subject)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, subject, encoded, 1); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%v is read as %v, %v", o, got, err)
		}
	}
}

func FuzzPart(f *testing.F) {
	for _, o := range operations() {
		encoded, err := o.Encode("db")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded[0])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := request.ReadPart("db", b, 1)
		if err != nil {
			return
		}
		o, err := request.Join([]request.Part{p})
		if err != nil {
			return
		}
		again, err := o.Encode("db")
		if err != nil || len(again) != 1 || string(again[0]) != string(b) {
			t.Errorf("%x is encoded again as %x, %v", b, again, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, body := range []string{
		`{"action":"query","sql":"SELECT ?","params":[null,1,2.5,"x",[1],{"0":1}],"maxRows":3}`, `{"action":"batch","statements":[{"sql":"a"}]}`,
		`{"action":"execute","sql":"a","schema":["b"]}`, `{"action":"executeStatement","name":"n"}`, `{"action":"outcome","epoch":"x"}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r, err := request.Parse([]byte(body))
		if err != nil {
			var refusal *tinycloud.Refusal
			if !errors.As(err, &refusal) {
				t.Errorf("no refusal: %v", err)
			}
			return
		}
		if !r.Runs() || r.Action == request.Batch && len(r.Statements) == 0 {
			return
		}
		o := request.Operation{Now: 1, Rules: 1, Request: r}
		encoded, err := o.Encode("db")
		if err != nil {
			return // it is too long
		}
		o.Request.MaxRows, o.Request.MaxBytes = 0, 0
		if got, err := read(t, "db", encoded, 1); err != nil || !cmp.Equal(got, o) {
			t.Errorf("%s comes back as %v, %v", body, got, err)
		}
	})
}

func TestAnswers(t *testing.T) {
	for want, cell := range map[string]any{
		"null": nil, "2.0": 2.0, "-0.0": math.Copysign(0, -1), "0.00001": 0.00001, "1.5e-7": 1.5e-7, "1000000000000000.0": 1e15, "1e+16": 1e16, "1e+21": 1e21,
		"1.2345678901234568e+17": 123456789012345680.0, "5e-324": 5e-324, "0.001": 0.001, "100.0": 100.0, "1234567.125": 1234567.125, "1e+100": 1e100, "-2.5e-300": -2.5e-300,
		"9223372036854775807": int64(math.MaxInt64), "[]": []byte{}, "[0,255]": []byte{0, 255}, `"\"\\\b\f\n\r\t\u0001<&>é` + "\u2028\"": "\"\\\b\f\n\r\t\x01<&>é\u2028",
		"\"\ufffd\"": "\xe4",
	} {
		b := request.AppendCell(nil, cell)
		if string(b) != want || !json.Valid(b) {
			t.Errorf("%#v is written %s, not %s", cell, b, want)
		}
	}
	if got := string(request.AppendCell(nil, math.Inf(-1))); got != "null" {
		t.Errorf("infinity is written %s", got)
	}
	r := request.Request{Action: request.Query}
	a, err := request.NewRows(&r, []string{"id", "name"})
	if err == nil {
		err = errors.Join(a.Add([]any{int64(1), "alice"}), a.Add([]any{int64(2), nil}))
	}
	if want := `{"columns":["id","name"],"rowCount":2,"rows":[[1,"alice"],[2,null]]}`; err != nil || string(a.JSON()) != want {
		t.Errorf("%s %v", a.JSON(), err)
	}
	if got := string(request.Change{Rows: 1, Added: true, RowID: 7}.JSON()); got != `{"changes":1,"lastInsertRowId":7}` {
		t.Error(got)
	}
	if got := string(request.Changes{{}, {Rows: 2}}.JSON()); got != `{"results":[{"changes":0,"lastInsertRowId":null},{"changes":2,"lastInsertRowId":null}]}` {
		t.Error(got)
	}
	if got := string(request.Changes{}.JSON()); got != `{"results":[]}` {
		t.Error(got)
	}
}

func TestAnswerBounds(t *testing.T) {
	if _, err := request.NewRows(&request.Request{MaxBytes: 5}, []string{"1"}); err == nil || err.Error() != "Response too large: 40 bytes" {
		t.Error(err)
	}
	a, err := request.NewRows(&request.Request{MaxRows: 1}, []string{"1"})
	if err == nil {
		err = a.Add([]any{int64(1)})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add([]any{int64(2)}); !errors.Is(err, tinycloud.ErrTooLarge) || err.Error() != "Response too large: 43 bytes" {
		t.Error(err)
	}
	a, err = request.NewRows(&request.Request{}, []string{"1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add([]any{strings.Repeat("x", request.AnswerBytes)}); !errors.Is(err, tinycloud.ErrTooLarge) {
		t.Error(err)
	}
}
