package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

const (
	databasesMost = 1000 // that are listed of a Space
	failedAtOnce  = 100  // writes that failed, unless fewer are asked for
	failedMost    = 1000
)

// SpaceDetail is the answer to GET /admin/spaces/{space}.
type SpaceDetail struct {
	SpaceView
	Databases []DatabaseView `json:"databases"`
}

// DatabaseView is a SQL database.
type DatabaseView struct {
	Name     string        `json:"name"`
	Writes   int64         `json:"writes"`         // that count
	Failed   *int64        `json:"failed"`         // of these, those that did nothing; null: not known since the files were opened
	Bytes    int64         `json:"bytes"`          // of operations, and of the pages that it takes here
	Position uint64        `json:"position"`       // how many writes have run here; 0 while it is not open
	Pending  int64         `json:"pending"`        // operations that only a newer release can read
	Hash     string        `json:"hash,omitempty"` // of its content, with ?hash=1: equal on two hosts iff the content is
	Doubled  []DoubledView `json:"doubled"`        // tokens that stand in several places with other requests
	Differs  []string      `json:"differs"`        // DIDs of hosts that made other content of the same writes
}

// DoubledView is a token that a host put again with another request.
type DoubledView struct {
	Event  string       `json:"event"` // CID
	Places []DoubleView `json:"places"`
}

// DoubleView is one of its places.
type DoubleView struct {
	Epoch  string   `json:"epoch"` // CID
	Hosts  []string `json:"hosts"` // DIDs, of those that say that it stands
	Counts bool     `json:"counts"`
}

// FailedView is a write that this host acknowledged and that did nothing after all.
type FailedView struct {
	Database   string          `json:"database"`
	Epoch      string          `json:"epoch"` // CID
	At         time.Time       `json:"at"`
	Error      string          `json:"error"`
	Schema     []string        `json:"schema"`
	Statements []StatementView `json:"statements"`
	Cut        bool            `json:"cut"` // the request is longer than what is shown
}

// StatementView is a statement with its parameters; a BLOB is an array of bytes.
type StatementView struct {
	SQL    string `json:"sql"`
	Params []any  `json:"params"`
}

// databases is the service that has them, nil where there is none.
func (n *Node) databases() *sql.Service {
	for _, x := range n.o.Services {
		if s, ok := x.(*sql.Service); ok {
			return s
		}
	}
	return nil
}

// differing counts the databases of which another host has other content.
func (n *Node) differing() int {
	if s := n.databases(); s != nil {
		return s.DifferingAll()
	}
	return 0
}

func (n *Node) detail(ctx context.Context, space tinycloud.SpaceID, look func(context.Context, tinycloud.SpaceID) (SpaceView, error), hash bool) (SpaceDetail, error) {
	v, err := look(ctx, space)
	if err != nil {
		return SpaceDetail{}, err
	}
	d := SpaceDetail{SpaceView: v, Databases: []DatabaseView{}}
	service := n.databases()
	if service == nil {
		return d, nil
	}
	list, err := service.Databases(ctx, n.store, space, hash, databasesMost)
	for _, x := range list {
		d.Databases = append(d.Databases, databaseView(x))
	}
	return d, err
}

func databaseView(x sql.Database) DatabaseView {
	v := DatabaseView{Name: x.Name, Writes: x.Writes, Bytes: x.Bytes, Position: x.Position, Pending: x.Pending, Doubled: []DoubledView{}, Differs: append([]string{}, x.Differs...)}
	if x.Failed >= 0 {
		v.Failed = &x.Failed
	}
	if !x.Hash.IsZero() {
		v.Hash = x.Hash.String()
	}
	for _, e := range x.Doubled {
		places := make([]DoubleView, len(e.Places))
		for i, p := range e.Places {
			places[i] = DoubleView{p.Epoch.EpochID(), p.Hosts, p.Counts}
		}
		v.Doubled = append(v.Doubled, DoubledView{e.Event.EventID(), places})
	}
	return v
}

// adminFailed answers which writes of this host to one database, or to all of a Space, failed after they were acknowledged: of
// each the newest first, behind the one that the last page ended with, named by its database, time and epoch.
func (n *Node) adminFailed(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	q := r.URL.Query()
	limit := failedAtOnce
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > failedMost {
			return 0, nil, fmt.Errorf("limit: %q, expected 1 to %d: %w", text, failedMost, tinycloud.ErrInvalid)
		}
	}
	after, err := failedAfter(q)
	if err != nil {
		return 0, nil, err
	}
	if _, err := n.store.Status(r.Context(), space); err != nil {
		return 0, nil, err
	}
	out := []FailedView{}
	service := n.databases()
	if service == nil {
		return http.StatusOK, out, nil
	}
	names, err := n.failing(r.Context(), service, space, q.Get("database"), q.Get("after"))
	if err != nil {
		return 0, nil, err
	}
	for _, name := range names {
		if len(out) == limit {
			break
		}
		from := sql.FailedAfter{}
		if name == q.Get("after") {
			from = after
		}
		list, err := service.Failed(r.Context(), n.store, space, name, from, limit-len(out))
		if err != nil {
			return 0, nil, fmt.Errorf("database %q: %w", name, err)
		}
		for _, f := range list {
			out = append(out, failedView(name, f))
		}
	}
	return http.StatusOK, out, nil
}

// failedAfter is the write that the last page ended with.
func failedAfter(q url.Values) (after sql.FailedAfter, err error) {
	if q.Get("at") == "" && q.Get("epoch") == "" {
		return after, nil
	}
	if after.At, err = time.Parse(time.RFC3339, q.Get("at")); err == nil {
		after.Epoch, err = tinycloud.ParseCID(q.Get("epoch"))
	}
	if err != nil || q.Get("after") == "" {
		return after, fmt.Errorf("after, at and epoch are those of a write that failed: %w", errors.Join(err, tinycloud.ErrInvalid))
	}
	return after, nil
}

// failing are the databases whose writes are looked at: one, or all from one on, by their names.
func (n *Node) failing(ctx context.Context, service *sql.Service, space tinycloud.SpaceID, one, from string) (names []string, err error) {
	if one != "" {
		return []string{one}, nil
	}
	list, err := service.Databases(ctx, n.store, space, false, databasesMost)
	for _, x := range list {
		if x.Pending == 0 && x.Name >= from {
			names = append(names, x.Name)
		}
	}
	slices.Sort(names)
	return names, err
}

// adminQuery answers what the operator asks a database. It is not for the network: what users have in databases is theirs.
func (n *Node) adminQuery(w http.ResponseWriter, r *http.Request) {
	answer, err := n.queryDatabase(w, r)
	if err != nil {
		sendJSON(w, adminStatus(err), adminError{tinycloud.Plain(err)})
		return
	}
	sendJSON(w, http.StatusOK, json.RawMessage(answer))
}

func (n *Node) queryDatabase(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	space, service, err := n.withDatabases(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQueryBody))
	if err != nil {
		return nil, fmt.Errorf("body: %w", errors.Join(err, tinycloud.ErrInvalid))
	}
	return service.Look(r.Context(), n.store, space, r.URL.Query().Get("database"), body)
}

// maxQueryBody bounds a query of the operator.
const maxQueryBody = 1_000_000

// adminExport answers with a database as a file that SQLite opens.
func (n *Node) adminExport(w http.ResponseWriter, r *http.Request) {
	sent := false
	space, service, err := n.withDatabases(r)
	if err == nil {
		err = service.Export(r.Context(), n.store, space, r.URL.Query().Get("database"), func(f io.Reader, size int64) error {
			w.Header().Set("Content-Type", "application/x-sqlite3")
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10)) // so that a client knows one that breaks off
			w.Header().Set("X-Content-Type-Options", "nosniff")
			sent = true
			_, _ = io.Copy(w, f) // the client may have gone
			return nil
		})
	}
	if err != nil && !sent {
		sendJSON(w, adminStatus(err), adminError{tinycloud.Plain(err)})
	}
}

func (n *Node) withDatabases(r *http.Request) (tinycloud.SpaceID, *sql.Service, error) {
	space, err := pathSpace(r)
	if err != nil {
		return space, nil, err
	}
	service := n.databases()
	if service == nil {
		return space, nil, fmt.Errorf("this node has no databases: %w", tinycloud.ErrNotFound)
	}
	return space, service, nil
}

func failedView(name string, f sql.Failure) FailedView {
	v := FailedView{Database: name, Epoch: f.Epoch.EpochID(), At: f.At, Error: f.Error, Schema: append([]string{}, f.Schema...), Statements: []StatementView{}, Cut: f.Cut}
	for _, s := range f.Statements {
		params := make([]any, len(s.Params))
		for i, p := range s.Params {
			if b, ok := p.([]byte); ok {
				numbers := make([]int, len(b))
				for k, c := range b {
					numbers[k] = int(c)
				}
				p = numbers
			}
			params[i] = p
		}
		v.Statements = append(v.Statements, StatementView{s.SQL, params})
	}
	return v
}
