// Package admin is the client of a node's admin API, over the socket in its data directory or over HTTP.
//
// It decides nothing and keeps nothing: one method is one request. The types of the answers are those of
// package node, which serves them.
package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

const (
	timeout   = 30 * time.Second
	maxAnswer = 64 << 20 // bytes; all Spaces of a large node
)

// ErrNotRunning means that nobody answers at the socket or address.
var ErrNotRunning = errors.New("no node is running")

// Client talks to one node.
type Client struct {
	http   *http.Client
	base   string
	where  string // for messages
	place  string // likewise: where a node would be
	secret string
}

// Local returns the client of the node that serves a data directory.
func Local(datadir string) *Client {
	path := node.Socket(datadir)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{http: &http.Client{Timeout: timeout, Transport: &http.Transport{DialContext: dial}}, base: "http://node", where: "the node", place: "on the data in " + datadir}
}

// Remote returns the client of a node by the URL of its HTTP API and its admin secret.
func Remote(base, secret string) *Client {
	return &Client{http: &http.Client{Timeout: timeout, Transport: &http.Transport{}}, base: base, where: base, place: "at " + base, secret: secret}
}

// API is how the HTTP API of the node is reached, for what apps ask of it.
func (c *Client) API() (url string, do *http.Client) { return c.base, c.http }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Node asks who the node is.
func (c *Client) Node(ctx context.Context) (info node.Info, err error) {
	return info, c.get(ctx, "/admin/node", &info)
}

// Healthy asks whether the node can serve and, of a Space unless it is nil, whether it serves that now.
func (c *Client) Healthy(ctx context.Context, space *tinycloud.SpaceID) (bool, error) {
	path := "/healthz"
	if space != nil {
		path += "?space=" + url.QueryEscape(space.String())
	}
	status, answer, err := c.do(ctx, http.MethodGet, path, "", nil)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusServiceUnavailable:
		return false, nil
	case status/100 != 2:
		return false, c.refused(status, answer)
	}
	return true, nil
}

// Page makes a link to the node's web page.
func (c *Client) Page(ctx context.Context) (v node.LinkView, err error) {
	return v, c.send(ctx, http.MethodPost, "/admin/page", nil, &v)
}

// Spaces returns all hosted Spaces.
func (c *Client) Spaces(ctx context.Context) (all []node.SpaceView, err error) {
	return all, c.get(ctx, "/admin/spaces", &all)
}

// Space returns one hosted Space. The error is of class [tinycloud.ErrNotFound] when it is not hosted.
func (c *Client) Space(ctx context.Context, space tinycloud.SpaceID) (v node.SpaceView, err error) {
	return v, c.get(ctx, spacePath(space), &v)
}

// Databases returns the SQL databases of a Space, with a hash of their content if it is asked for: that takes as long as it
// takes.
func (c *Client) Databases(ctx context.Context, space tinycloud.SpaceID, hash bool) ([]node.DatabaseView, error) {
	path := spacePath(space)
	if hash {
		path += "?hash=1"
	}
	var d node.SpaceDetail
	err := c.patient().get(ctx, path, &d)
	return d.Databases, err
}

// FailedQuery says which writes that failed are asked for.
type FailedQuery struct {
	Database string // "" for all
	Limit    int
	After    *node.FailedView // the last of the page before; nil for the first page. Its database, time and epoch count.
}

// FailedWrites returns the writes of the node to the databases of a Space that failed after they were acknowledged.
func (c *Client) FailedWrites(ctx context.Context, space tinycloud.SpaceID, q FailedQuery) (list []node.FailedView, err error) {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	if q.Database != "" {
		v.Set("database", q.Database)
	}
	if q.After != nil {
		v.Set("after", q.After.Database)
		v.Set("at", q.After.At.Format(time.RFC3339Nano))
		v.Set("epoch", q.After.Epoch)
	}
	return list, c.patient().get(ctx, spacePath(space)+"/failed?"+v.Encode(), &list)
}

// Query asks a database of a Space, by the body of an app's query. It is for the socket alone.
func (c *Client) Query(ctx context.Context, space tinycloud.SpaceID, database string, body []byte) (answer []byte, err error) {
	status, answer, err := c.do(ctx, http.MethodPost, spacePath(space)+"/query?"+url.Values{"database": {database}}.Encode(), "", body)
	if err == nil && status != http.StatusOK {
		err = c.refused(status, answer)
	}
	return answer, err
}

// Export opens a database of a Space as a file that SQLite opens. It is for the socket alone.
func (c *Client) Export(ctx context.Context, space tinycloud.SpaceID, database string) (io.ReadCloser, error) {
	return c.stream(ctx, spacePath(space)+"/export?"+url.Values{"database": {database}}.Encode())
}

// stream is get for an answer that the caller reads, and closes.
func (c *Client) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := c.patient().open(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	return nil, c.refused(resp.StatusCode, answer)
}

// patient is the same without an end of waiting.
func (c *Client) patient() *Client {
	patient := *c
	patient.http = &http.Client{Transport: c.http.Transport}
	return &patient
}

func spacePath(space tinycloud.SpaceID) string {
	return "/admin/spaces/" + url.PathEscape(space.String())
}

// NotHostError says that the owner of a Space has not made the node its host.
type NotHostError struct{ node.Hosting }

func (e *NotHostError) Error() string {
	return "this node is no host of the space: its owner has to delegate it to " + e.DID
}

// Join has the node join a Space. The error is a [*NotHostError] when it may not.
func (c *Client) Join(ctx context.Context, space tinycloud.SpaceID, q node.JoinRequest) (v node.SpaceView, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return v, err
	}
	status, answer, err := c.do(ctx, http.MethodPost, spacePath(space)+"/join", "", body)
	if err != nil {
		return v, err
	}
	if status == http.StatusConflict {
		e := &NotHostError{}
		if err := json.Unmarshal(answer, &e.Hosting); err != nil {
			return v, fmt.Errorf("answer of %s: %w", c.where, err)
		}
		return v, e
	}
	return v, c.decode(status, answer, &v)
}

// ForgetJoin has the node forget an address that a Space is joined through.
func (c *Client) ForgetJoin(ctx context.Context, space tinycloud.SpaceID, addr string) error {
	return c.send(ctx, http.MethodDelete, spacePath(space)+"/joins/"+url.PathEscape(addr), nil, &node.JoinRequest{})
}

// Policy returns which values the node fetches of a Space.
func (c *Client) Policy(ctx context.Context, space tinycloud.SpaceID) (v node.PolicyView, err error) {
	return v, c.get(ctx, policyPath(space), &v)
}

// SetPolicy sets it; nil is the node's.
func (c *Client) SetPolicy(ctx context.Context, space tinycloud.SpaceID, p *capstore.Policy) (v node.PolicyView, err error) {
	return v, c.put(ctx, policyPath(space), node.PolicyRequest{Policy: p}, &v)
}

func policyPath(space tinycloud.SpaceID) string {
	return "/admin/spaces/" + url.PathEscape(space.String()) + "/policy"
}

// Quotas returns the limits that were set, and the default.
func (c *Client) Quotas(ctx context.Context) (q node.Quotas, err error) {
	return q, c.get(ctx, "/admin/quota", &q)
}

// Quota returns the limit and the usage of a Space, hosted or not.
func (c *Client) Quota(ctx context.Context, space tinycloud.SpaceID) (q node.QuotaView, err error) {
	return q, c.get(ctx, quotaPath(space), &q)
}

// SetQuota sets the limit of a Space in bytes.
func (c *Client) SetQuota(ctx context.Context, space tinycloud.SpaceID, bytes int64) (q node.QuotaView, err error) {
	return q, c.put(ctx, quotaPath(space), node.QuotaRequest{LimitBytes: &bytes}, &q)
}

func (c *Client) put(ctx context.Context, path string, request, out any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	status, answer, err := c.do(ctx, http.MethodPut, path, "", body)
	if err != nil {
		return err
	}
	return c.decode(status, answer, out)
}

// ClearQuota forgets the limit that was set for a Space.
func (c *Client) ClearQuota(ctx context.Context, space tinycloud.SpaceID) (q node.QuotaView, err error) {
	status, answer, err := c.do(ctx, http.MethodDelete, quotaPath(space), "", nil)
	if err != nil {
		return q, err
	}
	return q, c.decode(status, answer, &q)
}

// Usage returns how much the hosted Spaces hold.
func (c *Client) Usage(ctx context.Context) (u node.Usage, err error) {
	return u, c.get(ctx, "/admin/usage", &u)
}

func quotaPath(space tinycloud.SpaceID) string {
	return "/admin/quota/" + url.PathEscape(space.String())
}

// HostDID returns the did:key of the node in a Space, hosted or not.
func (c *Client) HostDID(ctx context.Context, space tinycloud.SpaceID) (string, error) {
	status, answer, err := c.do(ctx, http.MethodGet, "/peer/generate/"+url.PathEscape(space.String()), "", nil)
	if err != nil {
		return "", err
	}
	if status != http.StatusOK {
		return "", c.refused(status, answer)
	}
	return string(answer), nil
}

// Backup has the node write a copy of its data to a directory; it takes as long as it takes.
func (c *Client) Backup(ctx context.Context, dir string) (b node.Backup, err error) {
	body, err := json.Marshal(node.BackupRequest{Dir: dir})
	if err != nil {
		return b, err
	}
	status, answer, err := c.patient().do(ctx, http.MethodPost, "/admin/backup", "", body)
	if err != nil {
		return b, err
	}
	return b, c.decode(status, answer, &b)
}

// Delegate posts a delegation by its Authorization header.
func (c *Client) Delegate(ctx context.Context, header string) (d Delegated, err error) {
	status, answer, err := c.do(ctx, http.MethodPost, "/delegate", header, nil)
	if err != nil {
		return d, err
	}
	return d, c.decode(status, answer, &d)
}

// Unhosting returns the text that the owner of a Space signs to remove a host.
func (c *Client) Unhosting(ctx context.Context, space tinycloud.SpaceID, host string) (string, error) {
	var u node.Unhosting
	err := c.get(ctx, spacePath(space)+"/hosts/"+url.PathEscape(host)+"/removal", &u)
	return u.SIWE, err
}

// Revoke posts a revocation by its Authorization header.
func (c *Client) Revoke(ctx context.Context, header string) error {
	status, answer, err := c.do(ctx, http.MethodPost, "/revoke", header, nil)
	if err == nil && status/100 != 2 {
		err = c.refused(status, answer)
	}
	return err
}

// Delegated is the answer to a delegation.
type Delegated struct {
	CID       string   `json:"cid"`
	Activated []string `json:"activated"`
	Skipped   []string `json:"skipped"`
}

func (c *Client) get(ctx context.Context, path string, out any) error {
	status, answer, err := c.do(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	return c.decode(status, answer, out)
}

func (c *Client) decode(status int, answer []byte, out any) error {
	if status/100 != 2 {
		return c.refused(status, answer)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("answer of %s: %w", c.where, err)
	}
	return nil
}

// refusal is what a node answers that does not do what it is asked.
type refusal struct {
	text  string
	class error // nil: of none
}

func (e *refusal) Error() string { return e.text }
func (e *refusal) Unwrap() error { return e.class }

// refused turns an answer into an error of the class it stands for. It says what the node says; where that is another
// machine's, it says which.
func (c *Client) refused(status int, answer []byte) error {
	var e struct {
		Error string `json:"error"`
	}
	text := strings.TrimSpace(string(answer))
	if json.Unmarshal(answer, &e) == nil && e.Error != "" {
		text = e.Error
	}
	if text == "" {
		text = fmt.Sprintf("the node answers %d", status)
	}
	if c.base == c.where {
		text = fmt.Sprintf("%s: %s (%d)", c.where, text, status)
	}
	switch status {
	case http.StatusNotFound:
		return &refusal{text, tinycloud.ErrNotFound}
	case http.StatusBadRequest:
		return &refusal{text, tinycloud.ErrInvalid}
	case http.StatusServiceUnavailable:
		return &refusal{text, tinycloud.ErrUnavailable}
	}
	return &refusal{text, nil}
}

func (c *Client) do(ctx context.Context, method, path, token string, body []byte) (int, []byte, error) {
	resp, err := c.open(ctx, method, path, token, body)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, answer, err
}

// open is do for who reads the body of the answer himself, and closes it.
func (c *Client) open(ctx context.Context, method, path, token string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if token == "" && c.secret != "" && strings.HasPrefix(path, "/admin/") {
		token = "Bearer " + c.secret
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
			return nil, fmt.Errorf("%w %s: start it with tinycloud-peer serve", ErrNotRunning, c.place)
		}
		return nil, err
	}
	return resp, nil
}
