package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/client"
)

// What the package signs is what a host takes.
func TestTokens(t *testing.T) {
	w, s := client.RandomWallet(), client.NewSession()
	space, err := w.Space("notes")
	if err != nil {
		t.Fatal(err)
	}
	grant := client.Grant{Audience: s.URI(), Expires: time.Now().Add(time.Hour), Domain: "app.example.com", Abilities: map[string][]string{
		space.String() + "/kv":  {"tinycloud.kv/put", "tinycloud.kv/get"},
		space.String() + "/sql": {"tinycloud.sql/read"},
	}}
	if s.Delegation, err = w.Delegate(grant); err != nil {
		t.Fatal(err)
	}
	d, err := capstore.ParseDelegation(s.Delegation.Header)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.VerifySignature(); err != nil || d.ID != s.Delegation.ID || d.Signer != w.DID() || d.Audience != s.DID() || len(d.Caps) != 3 {
		t.Errorf("%v, %+v", err, d)
	}
	inv, err := capstore.ParseInvocation(s.Token(space.String()+"/kv/k", "tinycloud.kv/get"))
	if err != nil {
		t.Fatal(err)
	}
	if err := inv.VerifySignature(); err != nil || len(inv.Proofs) != 1 || inv.Proofs[0] != d.ID {
		t.Errorf("%v, %+v", err, inv)
	}
	other, err := capstore.ParseDelegation(s.Delegate("did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", map[string][]string{space.String() + "/kv": {"tinycloud.kv/get"}}, time.Now().Add(time.Minute)).Header)
	if err != nil || other.VerifySignature() != nil {
		t.Errorf("%v", err)
	}

	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again := &client.Session{}
	if err := json.Unmarshal(b, again); err != nil || again.DID() != s.DID() || again.Delegation != s.Delegation {
		t.Errorf("%v, %s", err, again.DID())
	}
	for _, text := range []string{`{}`, `{"seed":"AA==","id":"AA=="}`} {
		if err := json.Unmarshal([]byte(text), again); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := client.Complete("some text", make([]byte, 65)); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Error(err)
	}
	if _, err := client.ParseWallet("0x" + strings.Repeat("1", 63)); err == nil {
		t.Error("a short key")
	}
}

// Lists go on from page to page, and a host that waits for history is asked again with the same token.
func TestSpace(t *testing.T) {
	var tokens []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens = append(tokens, r.Header.Get("Authorization"))
		switch {
		case len(tokens) == 1:
			w.Header().Set("Retry-After", "0")
			http.Error(w, "The space is joining", http.StatusServiceUnavailable)
		case len(tokens) == 2 && r.Header.Get("X-Tinycloud-Cursor") == "":
			w.Header().Set("X-Tinycloud-Next-Cursor", "more")
			fmt.Fprint(w, `["a","b"]`)
		case len(tokens) == 3 && r.Header.Get("X-Tinycloud-Cursor") == "more":
			fmt.Fprint(w, `["c"]`)
		default:
			http.Error(w, "Unauthorized Action", http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	id, err := client.RandomWallet().Space("notes")
	if err != nil {
		t.Fatal(err)
	}
	s := &client.Space{ID: id, Session: client.NewSession(), Host: server.URL, HTTP: server.Client()}
	var keys []string
	for key, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	if strings.Join(keys, "") != "abc" || len(tokens) != 3 || tokens[0] != tokens[1] || tokens[1] == tokens[2] {
		t.Errorf("%q, %d requests", keys, len(tokens))
	}
	var status *client.StatusError
	if _, err := s.Get(t.Context(), "k"); !errors.As(err, &status) || status.Text != "Unauthorized Action" || !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Error(err)
	}
	if err := s.Put(t.Context(), "a key", nil); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Error(err)
	}
}

func Example() {
	w, _ := client.ParseWallet(strings.Repeat("11", 32))
	space, _ := w.Space("notes")
	session := client.SessionOf([32]byte{1})
	d, err := w.Delegate(client.Grant{
		Audience: session.URI(), Expires: time.Now().Add(time.Hour),
		Abilities: map[string][]string{space.String() + "/kv": {"tinycloud.kv/get"}},
	})
	session.Delegation = d
	fmt.Println(space, err)
	// Output: tinycloud:pkh:eip155:1:0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A:notes <nil>
}
