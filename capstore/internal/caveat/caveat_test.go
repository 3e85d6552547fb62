package caveat_test

import (
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/caveat"
)

const list = `[{"mode":"constrained-statements","readOnly":true,"statements":[
	{"name":"one","sql":"SELECT a FROM t WHERE b = ? AND c = ?","fixedParams":[{"index":1,"value":"conv"}]},{"name":"free","sql":"SELECT ?, ?;"}]}]`

func TestWithin(t *testing.T) {
	parent := caveat.Alone([]byte(list))
	for want, child := range map[string]string{
		"":                                     list,
		"sql-non-readonly-not-permitted":       strings.Replace(list, `"readOnly":true`, `"readOnly":false`, 1),
		"containment-sql-statement-added":      strings.Replace(list, `"name":"free"`, `"name":"other"`, 1),
		"containment-sql-fixed-param-dropped":  strings.Replace(list, `{"index":1,"value":"conv"}`, `{"index":0,"value":"conv"}`, 1),
		"containment-sql-fixed-param-mismatch": strings.Replace(list, `"value":"conv"`, `"value":"other"`, 1),
		"containment-caveat-required":          `[{}]`,
	} {
		if got := caveat.Within(parent, caveat.Alone([]byte(child))); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
	narrow := caveat.Alone([]byte(`[{"constrained-statements":{"mode":"constrained-statements","readOnly":true,"statements":[
		{"name":"one","sql":"SELECT a FROM t WHERE b = ? AND c = ?","fixedParams":[{"index":0,"value":1},{"index":1,"value":"conv"}]}]}}]`))
	if got := caveat.Within(parent, narrow); got != "" {
		t.Errorf("narrower: %q", got)
	}
	if got := caveat.Within(narrow, parent); got != "containment-sql-statement-added" && got != "containment-sql-fixed-param-dropped" {
		t.Errorf("wider: %q", got)
	}
	if got := caveat.Within(nil, parent); got != "" {
		t.Errorf("under none: %q", got)
	}
}

// What says more than is known, or says something twice, is not compared.
func TestAlone(t *testing.T) {
	one := strings.TrimSuffix(strings.TrimPrefix(list, "["), "]")
	for _, text := range []string{
		``, `[]`, `[{}]`, `{}`, `[` + one + `,{}]`, `[{"x":1},` + one + `]`, strings.Replace(list, `"mode"`, `"until":1,"mode"`, 1), strings.Replace(list, `"name":"one"`, `"name":"one","limit":3`, 1),
		strings.Replace(list, `"index":1`, `"index":1,"as":2`, 1), strings.Replace(list, `"name":"free"`, `"name":"one"`, 1), strings.Replace(list, `"index":1`, `"index":99999`, 1),
		`[{"x":1,"constrained-statements":` + one + `}]`,
	} {
		if caveat.Alone([]byte(text)) != nil {
			t.Errorf("%s is compared", text)
		}
	}
}

func FuzzCaveat(f *testing.F) {
	f.Add(list)
	f.Fuzz(func(t *testing.T, text string) {
		c := caveat.Alone([]byte(text))
		if c == nil {
			return
		}
		if first, err := caveat.Parse([]byte(text)); err != nil || first == nil || len(first.Statements) != len(c.Statements) {
			t.Errorf("compared as %+v, kept to as %+v: %v", c, first, err)
		}
		if code := caveat.Within(c, c); code != "" && c.ReadOnly {
			t.Errorf("not within itself: %s", code)
		}
	})
}
