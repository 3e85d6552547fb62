package capstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Identity is who a node is to its data. A node whose secret is lost or mixed up would serve the data of another, under
// keys that no owner ever made a host: that refuses the start.
type Identity struct {
	// Node is the DID of the node; "" asks nothing and tells the database nothing.
	Node string
	// New takes over the data of another node: from then on it is that of Node.
	New bool
}

// Owner is the node whose data a database holds. The zero value is none: there is no data yet.
type Owner struct {
	Node string // its DID; "" in what older releases wrote, which did not tell
	// Space is one that it has, and Host its DID there; empty when it has none.
	Space tinycloud.SpaceID
	Host  string
}

// None reports whether the database holds nobody's data.
func (o Owner) None() bool { return o.Node == "" && o.Host == "" }

func (o Owner) String() string {
	if o.Node != "" {
		return o.Node
	}
	return "one that was " + o.Host + " in " + o.Space.String()
}

// OtherNodeError says that the data are another node's.
type OtherNodeError struct {
	Owner Owner
	Node  string // the one that asked
	Host  string // its DID in the Space that Owner names, if Owner names no node
}

func (e *OtherNodeError) Error() string {
	me := e.Node
	if e.Owner.Node == "" {
		me += ", which would be " + e.Host + " there"
	}
	return fmt.Sprintf("the data are of the node %s, and the secret (keys.secret) is of the node %s", e.Owner, me)
}

// FindOwner tells whose data a database holds. It makes none, and fails when another process has the file open.
func FindOwner(ctx context.Context, database string, log *slog.Logger) (o Owner, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if database == InMemory {
		return o, nil
	}
	if !db.IsServer(database) {
		if _, err := os.Stat(database); errors.Is(err, os.ErrNotExist) {
			return o, nil
		}
	}
	s := &Store{o: Options{Database: database}, log: log}
	defer func() {
		err = errors.Join(err, s.Close())
		if err != nil {
			err = fmt.Errorf("storage.database %q: %w", db.Redact(database), err)
		}
	}()
	if err := s.connect(ctx); err != nil {
		return o, err
	}
	return s.owner(ctx)
}

// owner reads whose data there are.
func (s *Store) owner(ctx context.Context) (o Owner, err error) {
	if _, err := s.db.Read.One(ctx, []any{&o.Node}, "SELECT did FROM node WHERE id = 1"); err != nil {
		return o, err
	}
	var text string
	var host []byte
	ok, err := s.db.Read.One(ctx, []any{&text, &host}, "SELECT space, host FROM spaces ORDER BY sid LIMIT 1")
	if err != nil || !ok {
		return o, err
	}
	if o.Space, err = tinycloud.ParseSpaceID(text); err != nil || len(host) != 32 {
		return o, errors.New("the first space: damaged row")
	}
	o.Host = hostlog.Key(host).String()
	return o, nil
}

// identify refuses the data of another node, unless they are to be taken over, and tells the database whose they are. It
// runs before the writer does.
func (s *Store) identify(ctx context.Context) error {
	me := s.o.Identity
	if me.Node == "" {
		return nil
	}
	o, err := s.owner(ctx)
	if err != nil || o.Node == me.Node {
		return err
	}
	ours, err := s.isOurs(ctx, o)
	if err != nil {
		return err
	}
	if !ours && !me.New {
		e := &OtherNodeError{Owner: o, Node: me.Node}
		if o.Host != "" {
			e.Host = s.hostKey(o.Space).String()
		}
		return e
	}
	if !ours {
		if err := s.Alone(ctx, s.claimSpaces); err != nil {
			return err
		}
		s.log.WarnContext(ctx, "the data of another node are this one's now: owners have to make it a host of their spaces again", "node", me.Node, "before", o.String())
	}
	return s.tellOwner(ctx, o)
}

// isOurs tells whether the data may be taken for this node's. What older releases wrote names no node: it is ours when a
// Space has our key. A file without anything that rests on the secret is as good as new; a server's database may be in
// use by a node that has nothing yet.
func (s *Store) isOurs(ctx context.Context, o Owner) (bool, error) {
	if o.Node != "" {
		if s.db.Shared || o.Host != "" {
			return false, nil
		}
		var some bool
		_, err := s.db.Read.One(ctx, []any{&some}, "SELECT EXISTS (SELECT 1 FROM network_keys)")
		return !some, err
	}
	if o.Host == "" {
		return true, nil
	}
	ours := false
	err := s.db.Read.Each(ctx, func(scan db.Scan) error {
		var text string
		var host []byte
		if err := scan(&text, &host); err != nil || ours {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		ours = err == nil && len(host) == 32 && s.hostKey(id) == hostlog.Key(host)
		return nil // learnSpaces tells what is damaged
	}, "SELECT space, host FROM spaces ORDER BY sid")
	return ours, err
}

// claimSpaces makes this node's keys those of the Spaces. What the other one signed is from now on that of another host.
func (s *Store) claimSpaces(ctx context.Context) error {
	type row struct {
		sid  int64
		host hostlog.Key
	}
	var rows []row
	err := s.db.Read.Each(ctx, func(scan db.Scan) error {
		var sid int64
		var text string
		if err := scan(&sid, &text); err != nil {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		if err != nil {
			return fmt.Errorf("space %d: damaged row", sid)
		}
		rows = append(rows, row{sid, s.hostKey(id)})
		return nil
	}, "SELECT sid, space FROM spaces ORDER BY sid")
	if err != nil {
		return err
	}
	for _, r := range rows { // one after another: when it is interrupted, the DID is the old one still, and it is done again
		if _, err := s.db.Control.Exec(ctx, "UPDATE spaces SET host = ?, removed = -1 WHERE sid = ?", r.host[:], r.sid); err != nil {
			return err
		}
	}
	return nil
}

// tellOwner writes whose data there are. Of several processes that are new the first says it.
func (s *Store) tellOwner(ctx context.Context, before Owner) error {
	if _, err := s.db.Control.Exec(ctx, "UPDATE node SET did = ? WHERE id = 1 AND did = ?", s.o.Identity.Node, before.Node); err != nil {
		return err
	}
	now, err := s.owner(ctx)
	if err == nil && now.Node != s.o.Identity.Node {
		err = &OtherNodeError{Owner: now, Node: s.o.Identity.Node}
	}
	return err
}
