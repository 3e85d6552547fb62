package gate

import (
	"errors"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Check looks at all statements of a request before one runs: whether one may write, and whether abilities and facts permit
// them by their words. facts may be nil. The error is a refusal.
func Check(q *request.Request, held Held, facts *Facts) (writes bool, err error) {
	check := func(sql string) error {
		s, err := Inspect(sql)
		if err == nil {
			err = errors.Join(held.Permit(s.Kind), facts.Permit(s))
		}
		writes = writes || err == nil && s.Writes()
		var first *tinycloud.Refusal
		if errors.As(err, &first) {
			return first
		}
		return err
	}
	for _, sql := range q.Schema {
		if err := check(sql); err != nil {
			return false, err
		}
	}
	for _, s := range q.Statements {
		if err := check(s.SQL); err != nil {
			return false, err
		}
	}
	return writes, nil
}
