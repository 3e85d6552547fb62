package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/client"
)

type answers func(*http.Request) string

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(f(r))), Request: r}, nil
}

// A host that ends every stream at once is asked once a second, and goes on from the change that was seen last.
func TestChangesOfAShortStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space, err := client.RandomWallet().Space("default")
		if err != nil {
			t.Fatal(err)
		}
		var after []string
		s := client.Space{ID: space, Host: "http://host", Session: client.NewSession(), HTTP: &http.Client{Transport: answers(func(r *http.Request) string {
			if r.URL.Path == "/hooks/tickets" {
				return `{"ticket":"x"}`
			}
			after = append(after, r.Header.Get("Last-Event-ID"))
			if len(after) == 1 {
				return "data: {\"id\":\"one\"}\n\n"
			}
			return ": nothing\n\n"
		})}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		var got []string
		for c, err := range s.Changes(ctx, "", "") {
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				break
			}
			got = append(got, c.ID)
		}
		if len(got) != 1 || len(after) != 11 || after[0] != "" || after[1] != "one" {
			t.Errorf("changes %v, asked after %q", got, after)
		}
	})
}
