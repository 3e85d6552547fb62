package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// readAtOnce is how many keys one request may read.
const readAtOnce = 100

// PutAll writes several values in one request: all of them or, with an error, none.
func (s *Space) PutAll(ctx context.Context, values map[string][]byte) error {
	keys := slices.Sorted(maps.Keys(values))
	if len(keys) == 0 {
		return nil
	}
	if len(keys) == 1 { // which is no batch
		return s.Put(ctx, keys[0], values[keys[0]])
	}
	token, err := s.tokenOf("tinycloud.kv/put", keys)
	if err != nil {
		return err
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for _, key := range keys {
		part, err := form.CreateFormField(url.PathEscape(key))
		if err != nil {
			return err
		}
		if _, err := part.Write(values[key]); err != nil {
			return err
		}
	}
	if err := form.Close(); err != nil {
		return err
	}
	_, _, err = s.send(ctx, http.MethodPost, "/invoke", token, map[string]string{"Content-Type": form.FormDataContentType()}, body.Bytes())
	return err
}

// GetAll reads several values; keys that have none are missing in what it returns. Every hundred keys are a request.
func (s *Space) GetAll(ctx context.Context, keys ...string) (map[string][]byte, error) {
	values := make(map[string][]byte, len(keys))
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	for some := range slices.Chunk(keys, readAtOnce) {
		if err := s.getSome(ctx, some, values); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func (s *Space) getSome(ctx context.Context, keys []string, values map[string][]byte) error {
	if len(keys) == 1 { // which is no batch
		value, err := s.Get(ctx, keys[0])
		if err == nil {
			values[keys[0]] = value
		} else if errors.Is(err, tinycloud.ErrNotFound) {
			return nil
		}
		return err
	}
	token, err := s.tokenOf("tinycloud.kv/get", keys)
	if err != nil {
		return err
	}
	b, err := s.text(ctx, http.MethodPost, "/invoke", token, nil)
	if err != nil {
		return err
	}
	var answer struct {
		Results []struct {
			Key        string
			OK         bool
			DataBase64 []byte
			Error      struct{ Code, Message string }
		}
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	for _, r := range answer.Results {
		switch {
		case r.OK:
			values[r.Key] = r.DataBase64
		case r.Error.Code != "KV_NOT_FOUND":
			return fmt.Errorf("%s: %s: %w", r.Key, r.Error.Message, tinycloud.ErrUnavailable)
		}
	}
	return nil
}

// tokenOf signs an invocation of one ability on several keys.
func (s *Space) tokenOf(ability string, keys []string) (string, error) {
	abilities := make(map[string][]string, len(keys))
	for _, key := range keys {
		r, err := s.resource("kv", key)
		if err != nil {
			return "", err
		}
		abilities[r] = []string{ability}
	}
	return s.Session.invocation(abilities), nil
}
