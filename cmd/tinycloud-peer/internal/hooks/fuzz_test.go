package hooks_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

const aSpace = "tinycloud:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK:photos"

func TestTicketRequests(t *testing.T) {
	sub := func(rest string) string {
		return `{"subscriptions":[{"space":"` + aSpace + `",` + rest + `}]}`
	}
	for body, want := range map[string]string{
		sub(`"service":"kv"`): "", sub(`"service":"kv","pathPrefix":null,"abilities":null`): "",
		sub(`"service":"kv","pathPrefix":"/a/","abilities":["tinycloud.kv/put","tinycloud.kv/del"]`): "",
		sub(`"service":"sql","abilities":["tinycloud.sql/write"]`):                                   "",
		sub(`"service":"duckdb"`): "",
		`{}`:                      "at least one subscription is required",
		`{"subscriptions":[]}`:    "at least one subscription is required",
		`{"subscriptions":[` + strings.TrimSuffix(strings.Repeat(`{},`, 33), ",") + `]}`: "too many requested hook scopes",
		sub(`"service":"space"`):                                               "Unsupported hook service",
		sub(`"service":"kv","abilities":["tinycloud.kv/get"]`):                 "hook ability filter does not match service",
		sub(`"service":"sql","abilities":["tinycloud.kv/put"]`):                "hook ability filter does not match service",
		sub(`"service":"kv","pathPrefix":"` + strings.Repeat("a", 4097) + `"`): "Invalid path",
		`{"subscriptions":[{"space":"nonsense","service":"kv"}]}`:              "Invalid space ID",
		`[`: "Invalid hook request",
		strings.TrimSuffix(sub(`"service":"kv"`), "}") + `,"ttlSeconds":-1}`:    "Invalid hook request",
		strings.TrimSuffix(sub(`"service":"kv"`), "}") + `,"ttlSeconds":"60"}`:  "Invalid hook request",
		strings.TrimSuffix(sub(`"service":"kv"`), "}") + `,"ttlSeconds":1e300}`: "",
	} {
		q, err := hooks.ParseTicketRequest([]byte(body))
		if (want == "") != (err == nil) || (err != nil && (err.Error() != want || !errors.Is(err, tinycloud.ErrInvalid))) {
			t.Errorf("%.80s: %v", body, err)
		}
		if err == nil && (len(q.Scopes) != 1 || q.TTL != 300*time.Second) {
			t.Errorf("%s: %+v", body, q)
		}
	}
}

func TestRegistrations(t *testing.T) {
	for body, want := range map[string]string{
		`"service":"kv","callbackUrl":"https://a.example/","secret":"x"`:                                 "",
		`"service":"kv","secret":"x"`:                                                                    "callbackUrl is required",
		`"service":"kv","callbackUrl":"https://a.example/"`:                                              "secret is required",
		`"service":"duckdb","callbackUrl":"https://a.example/","secret":"x"`:                             "Webhooks of duckdb are not supported by this node",
		`"service":"kv","callbackUrl":"https://a.example/","secret":"` + strings.Repeat("x", 1025) + `"`: "secret is too long",
	} {
		q, err := hooks.ParseRegistration([]byte(`{"space":"` + aSpace + `",` + body + `}`))
		if (want == "") != (err == nil) || (err != nil && err.Error() != want) || (err == nil && q.Secret != "x") {
			t.Errorf("%.80s: %v", body, err)
		}
	}
}

// FuzzRequests checks that whatever is accepted is within the bounds.
func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"subscriptions":[{"space":"` + aSpace + `","service":"kv","pathPrefix":"/a/"}],"ttlSeconds":60}`))
	f.Add([]byte(`{"space":"` + aSpace + `","service":"kv","callbackUrl":"https://a.example/","secret":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := hooks.ParseTicketRequest(body)
		if err != nil && !errors.Is(err, tinycloud.ErrInvalid) {
			t.Error(err)
		}
		if err == nil && (len(q.Scopes) == 0 || len(q.Scopes) > hooks.MaxScopes || q.TTL < 0 || q.TTL > hooks.MaxTicketTTL) {
			t.Errorf("%+v", q)
		}
		for _, s := range q.Scopes {
			if err == nil && (s.Space.IsZero() || strings.Trim(s.Prefix, "/") != s.Prefix) {
				t.Errorf("scope %+v", s)
			}
		}
		r, err := hooks.ParseRegistration(body)
		if err == nil && (r.Secret == "" || !strings.HasPrefix(r.CallbackURL, "https://") || r.Scope.Service != "kv") {
			t.Errorf("%+v", r)
		}
	})
}

func FuzzEventID(f *testing.F) {
	f.Add(fmt.Sprint(tinycloud.Sum(nil).EpochID(), ":0"))
	f.Add(fmt.Sprint(tinycloud.Sum(nil).EventID(), ":01"))
	f.Fuzz(func(t *testing.T, text string) {
		epoch, index, ok := hooks.ParseEventID(text)
		if ok && hooks.EventID(capstore.Change{Epoch: epoch, Index: index}) != text {
			t.Errorf("%q reads as %s and %d", text, epoch, index)
		}
	})
}

func FuzzTicket(f *testing.F) {
	h := hooks.New(hooks.Options{TicketKey: [32]byte{1}})
	f.Add("e30.AAAA")
	f.Fuzz(func(t *testing.T, ticket string) {
		if err := hooks.OpenTicket(h, ticket); !errors.Is(err, tinycloud.ErrUnauthorized) {
			t.Errorf("a ticket that nobody made: %v", err)
		}
	})
}
