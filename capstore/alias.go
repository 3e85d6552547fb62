package capstore

import (
	"context"
	"fmt"
	"regexp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// MaxAliases is how many names of nodes and hosts are kept.
const MaxAliases = 1000

// aliasName has no character by which it could be taken for a DID or an address, and is shorter than a peer id.
var aliasName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,32}$`)

// Alias is the operator's own name of a node, or of a host. It is shown to him, and told to nobody else.
type Alias struct {
	Name string
	ID   string // peer id of the node's front, or of a host in a Space
}

// SetAlias gives a name, durable when it returns. What had the name has it no more, and what has it had no other. The
// error is of class [tinycloud.ErrBusy] when there are too many.
func (s *Store) SetAlias(ctx context.Context, a Alias) error {
	switch {
	case !aliasName.MatchString(a.Name):
		return fmt.Errorf("name %.100q: expected 1 to 32 of A-Z a-z 0-9 . _ -: %w", a.Name, tinycloud.ErrInvalid)
	case a.ID == "" || len(a.ID) > maxPeerID:
		return fmt.Errorf("id of %d bytes, expected a peer id: %w", len(a.ID), tinycloud.ErrInvalid)
	}
	return s.do(ctx, func(t *tx) error {
		if err := t.exec("DELETE FROM aliases WHERE id = ? OR name = ?", a.ID, a.Name); err != nil {
			return err
		}
		var have int
		if _, err := t.one([]any{&have}, "SELECT count(*) FROM aliases"); err != nil {
			return err
		}
		if have >= MaxAliases {
			return tinycloud.Refuse(tinycloud.ErrBusy, "%d aliases are kept, and that is the most", have)
		}
		return t.add(db.Insert{Into: "aliases", Columns: "id name"}, a.ID, a.Name)
	})
}

// RemoveAlias forgets a name. The error is of class [tinycloud.ErrNotFound] when there is none.
func (s *Store) RemoveAlias(ctx context.Context, name string) error {
	return s.do(ctx, func(t *tx) error {
		var id string
		known, err := t.one([]any{&id}, "SELECT id FROM aliases WHERE name = ?", name)
		switch {
		case err != nil:
			return err
		case !known:
			return fmt.Errorf("there is no alias %.100q: %w", name, tinycloud.ErrNotFound)
		}
		return t.exec("DELETE FROM aliases WHERE id = ?", id)
	})
}

// Aliases returns what was named, by the names in order.
func (s *Store) Aliases(ctx context.Context) (out []Alias, err error) {
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var a Alias
		err := scan(&a.ID, &a.Name)
		out = append(out, a)
		return err
	}, "SELECT id, name FROM aliases ORDER BY name")
	return out, err
}
