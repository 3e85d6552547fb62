package node

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

const (
	conflictsAtOnce = 100 // of a page, unless fewer are asked for
	conflictsMost   = 1000
	conflictWait    = 10 * time.Second // for a value of another host
)

// ConflictView is a write that lost against another one, which did not know of it.
type ConflictView struct {
	Key      string            `json:"key"`
	Event    string            `json:"event"` // CID of the invocation
	Epoch    string            `json:"epoch"` // CID
	Index    int               `json:"index"` // of the event in the epoch
	Value    string            `json:"value"` // CID
	Size     int64             `json:"size"`  // of the value; -1 while it is not here
	Held     bool              `json:"held"`  // this host keeps, or looks for, the value
	Metadata map[string]string `json:"metadata"`
	Actor    string            `json:"actor"` // who signed it
	At       *time.Time        `json:"at"`    // when it was written; null when that is from before times count
	Since    *time.Time        `json:"since"` // when this host saw it lose
	Early    bool              `json:"early"` // of the first day of a history
}

// ConflictPage is a part of a list.
type ConflictPage struct {
	Conflicts []ConflictView `json:"conflicts"`
	Next      string         `json:"next"` // to ask for what follows with ?after=; "" at the end
}

func (n *Node) adminConflicts(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	after, err := decodeConflictCursor(r.URL.Query().Get("after"))
	if err != nil {
		return 0, nil, err
	}
	limit := conflictsAtOnce
	if text := r.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > conflictsMost {
			return 0, nil, fmt.Errorf("limit: %q, expected 1 to %d: %w", text, conflictsMost, tinycloud.ErrInvalid)
		}
	}
	list, next, err := n.keyValue.Conflicts(r.Context(), space, after, limit)
	if err != nil {
		return 0, nil, err
	}
	page := ConflictPage{Conflicts: []ConflictView{}, Next: encodeConflictCursor(next)}
	for _, c := range list {
		page.Conflicts = append(page.Conflicts, ConflictView{
			Key: c.Key, Event: c.Event.EventID(), Epoch: c.Epoch.EpochID(), Index: c.Index, Value: c.Value.EventID(), Size: c.Size, Held: c.Held,
			Metadata: c.Metadata, Actor: string(c.Actor), At: stamp(c.At), Since: stamp(c.Since), Early: c.Early,
		})
	}
	return http.StatusOK, page, nil
}

// conflictCursor is how a cursor is told: opaque to who gets it.
type conflictCursor struct {
	Key   []byte
	Event tinycloud.Hash
}

func encodeConflictCursor(c kv.ConflictCursor) string {
	if c == (kv.ConflictCursor{}) {
		return ""
	}
	b, err := json.Marshal(conflictCursor{[]byte(c.Key), c.Event})
	if err != nil {
		panic(err) // bytes always encode
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeConflictCursor(text string) (out kv.ConflictCursor, err error) {
	if text == "" {
		return out, nil
	}
	var c conflictCursor
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return out, fmt.Errorf("after: it is no cursor: %w", tinycloud.ErrInvalid)
	}
	return kv.ConflictCursor{Key: string(c.Key), Event: c.Event}, nil
}

// conflictValue answers with the bytes of a value of a Space, which a conflict names by its CID.
func (n *Node) conflictValue(w http.ResponseWriter, r *http.Request) {
	err := n.sendConflictValue(w, r)
	if err != nil {
		sendJSON(w, adminStatus(err), adminError{err.Error()})
	}
}

func (n *Node) sendConflictValue(w http.ResponseWriter, r *http.Request) error {
	space, err := pathSpace(r)
	if err != nil {
		return err
	}
	value, err := tinycloud.ParseCID(r.PathValue("value"))
	if err != nil {
		return fmt.Errorf("value: %w", errors.Join(err, tinycloud.ErrInvalid))
	}
	disputed, err := n.keyValue.Disputed(r.Context(), space, value)
	if err != nil {
		return err
	}
	if !disputed {
		return fmt.Errorf("no conflict of %s has this value: %w", space, tinycloud.ErrNotFound)
	}
	body, err := n.disputedValue(r.Context(), space, value)
	if err != nil {
		return err
	}
	defer body.Close()
	size, err := body.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = body.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10)) // so that a client knows one that breaks off
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.Copy(w, body) // the client may have gone
	return nil
}

// disputedValue opens a value, fetching it if need be, as for a get.
func (n *Node) disputedValue(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash) (io.ReadSeekCloser, error) {
	body, err := n.store.Value(ctx, space, value)
	if !errors.Is(err, tinycloud.ErrUnavailable) && !errors.Is(err, tinycloud.ErrNotFound) {
		return body, err
	}
	ctx, cancel := context.WithTimeout(ctx, conflictWait)
	defer cancel()
	if err := n.spaces.fetch(ctx, space, value); err != nil {
		return nil, fmt.Errorf("value %s is not here: %w", value.EventID(), errors.Join(err, tinycloud.ErrUnavailable))
	}
	return n.store.Value(ctx, space, value)
}
