package client

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// SignedURL is a URL by which anyone may read the value that a key has now, without a token.
type SignedURL struct {
	URL     string    `json:"url"`
	Expires time.Time `json:"expiresAt"`
}

// SignURL has the host make a URL for a key: for so long, five minutes at most. Other hosts do not know it, and it ends with
// the session or when the key has another value.
func (s *Space) SignURL(ctx context.Context, key string, life time.Duration) (u SignedURL, err error) {
	token, err := s.token("kv", key, "tinycloud.kv/get")
	if err != nil {
		return u, err
	}
	body, err := json.Marshal(map[string]any{"space": s.ID.String(), "path": key, "ttlSeconds": int64(life.Seconds())})
	if err != nil {
		return u, err
	}
	b, _, err := s.send(ctx, http.MethodPost, "/signed/kv", token, map[string]string{"Content-Type": "application/json"}, body)
	if err != nil {
		return u, err
	}
	err = json.Unmarshal(b, &u)
	u.URL = strings.TrimSuffix(s.Host, "/") + u.URL
	return u, err
}
