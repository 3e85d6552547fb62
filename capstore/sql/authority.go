package sql

import (
	"encoding/json"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// authority is what a token lets do with a database. Its right to all that it asks for there is the history's to judge.
type authority struct {
	held        gate.Held
	constrained []*gate.Constrained // caveats: all have to allow what is done
	facts       *gate.Facts
}

// name is of a database.
type name struct {
	space tinycloud.SpaceID
	path  string
}

// chosen are the space and the path that a token's SQL capabilities name. The error is a refusal.
func chosen(t *token.Token) (n name, err error) {
	for _, c := range t.Caps {
		if c.Resource.Service() != request.Service || !strings.HasPrefix(c.Ability, prefix) {
			continue
		}
		path, has := c.Resource.Path()
		switch {
		case !n.space.IsZero() && n.space != c.Resource.Space():
			return n, tinycloud.Refuse(tinycloud.ErrInvalid, "Ambiguous sql capabilities span multiple spaces")
		case has && n.path != "" && n.path != pathOf(path):
			return n, tinycloud.Refuse(tinycloud.ErrInvalid, "Ambiguous sql capabilities span multiple database paths")
		}
		if n.space = c.Resource.Space(); has {
			n.path = pathOf(path)
		}
	}
	n.path = pathOf(n.path)
	return n, nil
}

func pathOf(path string) string {
	if path == "" {
		return Default
	}
	return path
}

// authorityOf reads what a token holds on a database. The error is a refusal: caveats or facts can't be kept to.
func authorityOf(t *token.Token, of name) (a authority, err error) {
	for _, c := range t.Caps {
		path, has := c.Resource.Path()
		if c.Resource.Service() != request.Service || c.Resource.Space() != of.space || !has && !c.Resource.Bare() || pathOf(path) != of.path {
			continue
		}
		if !a.held.Hold(c.Ability) {
			continue
		}
		limits, err := gate.ParseConstrained(c.Caveats)
		if err != nil {
			return a, err
		}
		if limits != nil {
			a.constrained = append(a.constrained, limits)
		}
	}
	if len(t.Facts) == 0 {
		return a, nil
	}
	b, err := json.Marshal(t.Facts)
	if err != nil {
		return a, tinycloud.Refuse(tinycloud.ErrInvalid, "sqlCaveats: %v", err)
	}
	a.facts, err = gate.ParseFacts(b)
	return a, err
}

// resolve has caveats judge a request, and looks up the statement that it names. The error is a refusal.
func (a *authority) resolve(q *request.Request) error {
	for i, c := range a.constrained {
		s, err := c.Resolve(q)
		if err != nil {
			return err
		}
		if i == len(a.constrained)-1 {
			q.Statements = []request.Statement{s}
		}
	}
	switch {
	case len(a.constrained) > 0:
		a.facts = &gate.Facts{ReadOnly: true}
	case q.Action == request.ExecuteStatement:
		s, err := a.facts.Resolve(q)
		if err != nil {
			return err
		}
		q.Statements = []request.Statement{s}
	}
	return nil
}

const (
	// slack is how far the time of a request may be from the time that it is ordered by.
	slack = 120 * time.Second
	// longest is how long a token may write that doesn't say from when on it is valid.
	longest = 300 * time.Second
)

// begins is from when on a token may write.
func begins(t *token.Token) time.Time {
	if t.NotBefore.IsZero() && !t.Expires.IsZero() {
		return t.Expires.Add(-longest)
	}
	return t.NotBefore
}
