package engine_test

import (
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
)

// made is what a history makes.
type made struct {
	Hash     string
	Verdicts []outcome
}

// TestGolden holds that histories make what they always made: content, verdicts and costs. An engine that makes something
// else of one is not the engine of these rules.
func TestGolden(t *testing.T) {
	var histories map[string][][]string
	readJSON(t, "testdata/histories.json", &histories)
	got := map[string]made{}
	for name, operations := range histories {
		h := newHost(t, engine.Options{Group: 3})
		var m made
		var log []engine.Op
		for i, statements := range operations {
			op := operation(uint64(i))
			for _, s := range statements {
				op.Request.Statements = append(op.Request.Statements, stmt(s))
			}
			log = append(log, op)
		}
		err := h.Apply(t.Context(), log, func(_ *engine.Op, res engine.Result) {
			o := outcome{Applied: res.Err == nil, Cost: res.Cost}
			if res.Err != nil {
				o.Cost, o.Why = engine.Cost{}, res.Err.Error()
			}
			m.Verdicts = append(m.Verdicts, o)
		}, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		m.Hash = h.hash().String()
		got[name] = m
	}
	golden(t, "testdata/histories.golden.json", got)
}
