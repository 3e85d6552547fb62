package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/policy"
)

// publicName is that of Spaces which anyone may read, and which have a limit of their own.
const publicName = "public"

func (n *Node) openPolicies() {
	log := n.log.With("part", "policy")
	if n.cfg.QuotaURL != "" {
		n.quota = policy.NewQuota(policy.Options{URL: n.cfg.QuotaURL, Log: log})
	}
	if n.cfg.Spaces.Allowlist != "" {
		n.allow = policy.NewAllowlist(policy.Options{URL: n.cfg.Spaces.Allowlist, Log: log})
	}
}

func (n *Node) closePolicies() {
	if n.quota != nil {
		n.quota.Close()
	}
	if n.allow != nil {
		n.allow.Close()
	}
}

// allowed tells the database whether this node agrees to host a Space.
func (n *Node) allowed(ctx context.Context, space tinycloud.SpaceID) error {
	if n.allow == nil {
		return nil
	}
	return n.allow.Allow(ctx, space)
}

// limit is how many bytes a Space may hold, as far as it is known without waiting.
func (n *Node) limit(space tinycloud.SpaceID) (int64, bool) {
	limit := n.cfg.Storage.Limit
	if space.Name() == publicName {
		limit = n.cfg.PublicSpaces.Limit
		return limit.Int64(), limit > 0
	}
	if bytes, ok := n.store.Quota(space); ok {
		return bytes, true
	}
	if n.quota != nil {
		if bytes, ok := n.quota.Limit(space); ok {
			return bytes, true
		}
	}
	return limit.Int64(), limit > 0
}

// learnQuota asks the quota service about a Space if its answer would count.
func (n *Node) learnQuota(ctx context.Context, space tinycloud.SpaceID) {
	if n.quota == nil || space.Name() == publicName {
		return
	}
	if _, ok := n.store.Quota(space); !ok {
		n.quota.Warm(ctx, space)
	}
}

// publicURL is a configured URL without what only this node is to know, and without a slash at its end.
func publicURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	u.User = nil
	return strings.TrimRight(u.String(), "/")
}

// QuotaView is the answer to GET, PUT and DELETE of /admin/quota/{space}.
type QuotaView struct {
	Space     tinycloud.SpaceID `json:"space_id"`
	Override  *int64            `json:"override_bytes"`        // null: not set
	Effective *int64            `json:"effective_limit_bytes"` // null: no limit
	Usage     *int64            `json:"current_usage_bytes"`   // null: not hosted here
}

// QuotaRequest is the body of PUT /admin/quota/{space}.
type QuotaRequest struct {
	LimitBytes *int64 `json:"limit_bytes"` // 0 or more
}

// Quotas is the answer to GET /admin/quota.
type Quotas struct {
	Overrides map[tinycloud.SpaceID]int64 `json:"overrides"`           // never null
	Default   *int64                      `json:"default_limit_bytes"` // storage.limit; null: none
}

// SpaceUsage is how much a Space holds here.
type SpaceUsage struct {
	Space tinycloud.SpaceID `json:"space_id"`
	Bytes int64             `json:"usage_bytes"`
}

// Usage is the answer to GET /admin/usage.
type Usage struct {
	Spaces []SpaceUsage `json:"spaces"` // by id; never null
	Count  int          `json:"count"`
}

func (n *Node) adminQuotas(*http.Request) (int, any, error) {
	q := Quotas{Overrides: n.store.Quotas()}
	if limit := n.cfg.Storage.Limit; limit > 0 {
		bytes := limit.Int64()
		q.Default = &bytes
	}
	return http.StatusOK, q, nil
}

func (n *Node) adminUsage(r *http.Request) (int, any, error) {
	all, err := n.store.UsageAll(r.Context())
	if err != nil {
		return 0, nil, err
	}
	u := Usage{Spaces: make([]SpaceUsage, 0, len(all)), Count: len(all)}
	for _, s := range all {
		u.Spaces = append(u.Spaces, SpaceUsage{s.Space, s.Bytes})
	}
	return http.StatusOK, u, nil
}

func (n *Node) adminQuota(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	return n.viewQuota(r.Context(), space)
}

// viewQuota collects what holds for a Space.
func (n *Node) viewQuota(ctx context.Context, space tinycloud.SpaceID) (int, any, error) {
	v := QuotaView{Space: space}
	n.learnQuota(ctx, space)
	if bytes, ok := n.store.Quota(space); ok {
		v.Override = &bytes
	}
	if bytes, ok := n.limit(space); ok {
		v.Effective = &bytes
	}
	used, err := n.store.Usage(ctx, space)
	switch {
	case err == nil:
		v.Usage = &used
	case !errors.Is(err, tinycloud.ErrNotFound):
		return 0, nil, err
	}
	return http.StatusOK, v, nil
}

func (n *Node) adminSetQuota(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	var q QuotaRequest
	if err := decodeBody(r, &q); err != nil {
		return 0, nil, err
	}
	if q.LimitBytes == nil || *q.LimitBytes < 0 {
		return 0, nil, fmt.Errorf("limit_bytes: expected a number of bytes: %w", tinycloud.ErrInvalid)
	}
	if err := n.store.SetQuota(r.Context(), space, *q.LimitBytes); err != nil {
		return 0, nil, err
	}
	n.spaces.resume(space)
	return n.viewQuota(r.Context(), space)
}

func (n *Node) adminClearQuota(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	if err := n.store.ClearQuota(r.Context(), space); err != nil {
		return 0, nil, err
	}
	n.spaces.resume(space)
	return n.viewQuota(r.Context(), space)
}

// decodeBody reads a body that is one JSON value with no members but those of out.
func decodeBody(r *http.Request, out any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(out)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		return fmt.Errorf("body: %v: %w", err, tinycloud.ErrInvalid)
	}
	return nil
}
