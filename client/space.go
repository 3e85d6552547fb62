package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

const (
	maxText    = 64 << 10 // bytes of a refusal that are read
	listAtOnce = 1000
	patience   = time.Minute // for a Space whose history is coming
	leastWait  = 100 * time.Millisecond
)

// Space is a Space at a host. It may be used by several goroutines.
type Space struct {
	ID      tinycloud.SpaceID
	Session *Session
	Host    string       // URL of the host's HTTP API
	HTTP    *http.Client // nil: [http.DefaultClient]
}

// StatusError is a host's refusal. It is of the class that the status stands for.
type StatusError struct {
	Status int
	Text   string // what the host said
}

func (e *StatusError) Error() string { return fmt.Sprintf("%s (%d)", e.Text, e.Status) }

// Unwrap returns the class.
func (e *StatusError) Unwrap() error { return tinycloud.ClassOf(e.Status) }

// HostDID is who the host is in the Space, hosted or not: the audience of [HostGrant].
func (s *Space) HostDID(ctx context.Context) (string, error) {
	b, err := s.text(ctx, http.MethodGet, "/peer/generate/"+url.PathEscape(s.ID.String()), "", nil)
	return string(b), err
}

// Post tells the host of a delegation, a host's or a session's. While the host waits for the Space's history it asks again.
func (s *Space) Post(ctx context.Context, d Delegation) error {
	_, err := s.text(ctx, http.MethodPost, "/delegate", d.Header, nil)
	return err
}

// Put writes a value. A nil error means that the host has it durably.
func (s *Space) Put(ctx context.Context, key string, value []byte) error {
	_, err := s.invoke(ctx, "kv", key, "tinycloud.kv/put", value)
	return err
}

// Get reads a value; the error is of class [tinycloud.ErrNotFound] when the key has none.
func (s *Space) Get(ctx context.Context, key string) ([]byte, error) {
	return s.invoke(ctx, "kv", key, "tinycloud.kv/get", nil)
}

// Delete removes a key.
func (s *Space) Delete(ctx context.Context, key string) error {
	_, err := s.invoke(ctx, "kv", key, "tinycloud.kv/del", nil)
	return err
}

// List yields the keys that begin with a prefix, in order of their bytes, until one cannot be read.
func (s *Space) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for cursor := ""; ; {
			page, next, err := s.page(ctx, prefix, cursor)
			if err != nil {
				yield("", err)
				return
			}
			for _, key := range page {
				if !yield(key, nil) {
					return
				}
			}
			if cursor = next; cursor == "" {
				return
			}
		}
	}
}

func (s *Space) page(ctx context.Context, prefix, cursor string) (keys []string, next string, err error) {
	token, err := s.token("kv", prefix, "tinycloud.kv/list")
	if err != nil {
		return nil, "", err
	}
	headers := map[string]string{"X-Tinycloud-Limit": strconv.Itoa(listAtOnce)}
	if cursor != "" {
		headers["X-Tinycloud-Cursor"] = cursor
	}
	b, h, err := s.send(ctx, http.MethodPost, "/invoke", token, headers, nil)
	if err != nil {
		return nil, "", err
	}
	return keys, h.Get("X-Tinycloud-Next-Cursor"), json.Unmarshal(b, &keys)
}

// token signs an invocation on a path of a service. A key is part of a URI, and has to be escaped by who makes it up.
func (s *Space) token(service, path, ability string) (string, error) {
	r, err := s.resource(service, path)
	if err != nil {
		return "", err
	}
	return s.Session.Token(r, ability), nil
}

func (s *Space) resource(service, path string) (string, error) {
	r, ok := s.ID.NewKey(service, path)
	if !ok {
		return "", fmt.Errorf("%q cannot stand in a URI, escape it: %w", path, tinycloud.ErrInvalid)
	}
	return r.String(), nil
}

// Rows is the answer to a query.
type Rows struct {
	Columns []string            `json:"columns"`
	Rows    [][]json.RawMessage `json:"rows"`
}

// Query reads rows of a database of the Space.
func (s *Space) Query(ctx context.Context, database, statement string, params ...any) (rows Rows, err error) {
	return rows, s.sql(ctx, database, "query", "tinycloud.sql/read", statement, params, &rows)
}

// Execute carries out a statement that writes, and returns how many rows it changed. It is tentative until the other hosts
// are known to have it (docs/protocol.md, "SQL").
func (s *Space) Execute(ctx context.Context, database, statement string, params ...any) (changes int64, err error) {
	var out struct {
		Changes int64 `json:"changes"`
	}
	err = s.sql(ctx, database, "execute", "tinycloud.sql/write", statement, params, &out)
	return out.Changes, err
}

// Statement is a statement of a batch.
type Statement struct {
	SQL    string `json:"sql"`
	Params []any  `json:"params"` // nil, texts, numbers; of a float64 JSON has to tell that it is one: [Real]
}

// Real is a parameter that is a floating point number also if it is whole.
type Real float64

// MarshalJSON writes a number with a point or an exponent.
func (r Real) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(float64(r))
	if err == nil && !bytes.ContainsAny(b, ".eE") {
		b = append(b, ".0"...)
	}
	return b, err
}

// Batch carries statements out as one request: all of them, or nothing.
func (s *Space) Batch(ctx context.Context, database string, statements []Statement) error {
	all := make([]Statement, len(statements))
	for i, q := range statements {
		all[i] = Statement{q.SQL, append([]any{}, q.Params...)}
	}
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any{"action": "batch", "statements": all}); err != nil {
		return err
	}
	_, err := s.invoke(ctx, "sql", database, "tinycloud.sql/write", body.Bytes())
	return err
}

func (s *Space) sql(ctx context.Context, database, action, ability, statement string, params []any, out any) error {
	body, err := json.Marshal(map[string]any{"action": action, "sql": statement, "params": append([]any{}, params...)})
	if err != nil {
		return err
	}
	answer, err := s.invoke(ctx, "sql", database, ability, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

func (s *Space) invoke(ctx context.Context, service, path, ability string, body []byte) ([]byte, error) {
	token, err := s.token(service, path, ability)
	if err != nil {
		return nil, err
	}
	return s.text(ctx, http.MethodPost, "/invoke", token, body)
}

// text sends a request. A host that refuses it for now, before it does anything, takes the same token again.
func (s *Space) text(ctx context.Context, method, path, token string, body []byte) ([]byte, error) {
	answer, _, err := s.send(ctx, method, path, token, nil, body)
	return answer, err
}

func (s *Space) send(ctx context.Context, method, path, token string, headers map[string]string, body []byte) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		answer, header, rest, err := s.once(ctx, method, path, token, headers, body)
		if err == nil || !errors.Is(err, tinycloud.ErrUnavailable) {
			return answer, header, err
		}
		if !wait.For(ctx, rest) {
			return nil, nil, err
		}
	}
}

func (s *Space) once(ctx context.Context, method, path, token string, headers map[string]string, body []byte) (answer []byte, h http.Header, rest time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(s.Host, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, 0, err
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	resp, err := s.client().Do(r)
	if err != nil {
		return nil, nil, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		answer, err = io.ReadAll(resp.Body)
		return answer, resp.Header, 0, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil {
		return nil, nil, 0, err
	}
	rest = time.Second
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		rest = max(leastWait, time.Duration(seconds)*time.Second)
	}
	return nil, nil, rest, &StatusError{resp.StatusCode, strings.TrimSpace(string(text))}
}

func (s *Space) client() *http.Client {
	if s.HTTP != nil {
		return s.HTTP
	}
	return http.DefaultClient
}
