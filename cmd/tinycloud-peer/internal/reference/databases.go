package reference

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Odd things about databases.
const (
	oddDatabase = "database that is not as it was saved, left out"
	oddService  = "database of a service that is not here, left out"
	oddLarge    = "database of more than 1 GiB, left out"
)

// maxArtifact is how large a saved database may be, in bytes: it is read into memory.
const maxArtifact = 1 << 30

// Artifact is a SQL database as the reference saved it: a checkpoint, which is a whole SQLite file, and what its write-ahead
// log has beyond that, nil for nothing. Its name is the last segment of the paths by which it was used.
type Artifact struct {
	Name    string
	Payload []byte
	Delta   []byte
	Paths   []string // by which it was used, as far as that is recorded
}

// Databases calls yield with the SQL databases of a Space, one at a time. Versions that had none have none.
func (d *DB) Databases(ctx context.Context, space Space, odd func(Oddity), yield func(Artifact) error) error {
	if !d.artifacts {
		return nil
	}
	type saved struct {
		service, name string
		size          int64
	}
	rows, err := d.query(ctx, "SELECT service, name, size_bytes FROM database_artifact WHERE space = ? ORDER BY service, name", space.Text)
	if err != nil {
		return err
	}
	var all []saved
	for rows.Next() {
		var x saved
		if err := rows.Scan(&x.service, &x.name, &x.size); err != nil {
			return errors.Join(err, rows.Close())
		}
		all = append(all, x)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(all) == 0 {
		return err
	}
	paths, err := d.paths(ctx, space)
	if err != nil {
		return err
	}
	for _, x := range all {
		switch {
		case x.service != "sql":
			odd(Oddity{space.Text, oddService, fmt.Sprintf("%s %q", x.service, x.name)})
			continue
		case x.size > maxArtifact:
			odd(Oddity{space.Text, oddLarge, fmt.Sprintf("%q", x.name)})
			continue
		}
		a, err := d.artifact(ctx, space, x.name)
		if errors.Is(err, errArtifact) {
			odd(Oddity{space.Text, oddDatabase, fmt.Sprintf("%q: %v", x.name, err)})
			continue
		}
		if err != nil {
			return err
		}
		a.Paths = paths[x.name]
		if err := yield(a); err != nil {
			return err
		}
	}
	return nil
}

var errArtifact = errors.New("its bytes are not those of its hash")

func (d *DB) artifact(ctx context.Context, space Space, name string) (a Artifact, err error) {
	a.Name = name
	var content, checkpoint string
	var delta *string
	err = d.row(ctx, "SELECT payload, content_hash, checkpoint_content_hash, delta_payload, delta_content_hash FROM database_artifact WHERE service = 'sql' AND space = ? AND name = ?", space.Text, name).
		Scan(&a.Payload, &content, &checkpoint, &a.Delta, &delta)
	if err != nil {
		return a, err
	}
	if checkpoint == "" { // it was saved before there were deltas
		checkpoint = content
	}
	if !isHashOf(checkpoint, a.Payload) || a.Delta != nil && (delta == nil || !isHashOf(*delta, a.Delta)) {
		return a, errArtifact
	}
	return a, nil
}

func isHashOf(cid string, b []byte) bool {
	h, err := tinycloud.ParseCID(cid)
	return err == nil && h == tinycloud.Sum(b)
}

// paths are those by which databases of a Space were used, by their last segments.
func (d *DB) paths(ctx context.Context, space Space) (map[string][]string, error) {
	out := map[string][]string{}
	if !d.abilities {
		return out, nil
	}
	prefix := space.Text + "/sql/"
	rows, err := d.query(ctx, "SELECT DISTINCT resource FROM invoked_abilities WHERE resource LIKE ?", likePrefix(prefix))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var resource string
		if err := rows.Scan(&resource); err != nil {
			return nil, err
		}
		path, ok := strings.CutPrefix(resource, prefix)
		if !ok {
			continue
		}
		name := path[strings.LastIndexByte(path, '/')+1:]
		out[name] = append(out[name], path)
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out, rows.Err()
}

// likePrefix is a pattern of what begins with a text, or looks alike: who asks with it checks again.
func likePrefix(prefix string) string {
	return strings.NewReplacer("%", "_", `\`, "_").Replace(prefix) + "%"
}
