package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/client"
)

// TestClient does with package client what a program in Go does, at one host, and listens to it at another.
func TestClient(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2)
	g.same()
	s := &client.Space{ID: g.owner.Space, Session: client.NewSession(), Host: g.nodes.Peers()[0].URL}
	var err error
	s.Session.Delegation, err = client.DelegationOf(g.owner.Grant(s.Session.URI()))
	g.must(err)
	g.must(s.Post(g.ctx, s.Session.Delegation))

	many := map[string][]byte{}
	var keys []string
	for n := range 120 {
		key := fmt.Sprintf("many/%03d", n)
		many[key], keys = []byte(key), append(keys, key)
	}
	g.must(s.PutAll(g.ctx, many))
	got, err := s.GetAll(g.ctx, append(keys, "many/none")...)
	g.must(err)
	if len(got) != 120 || string(got["many/119"]) != "many/119" {
		t.Errorf("%d values", len(got))
	}
	if got, err := s.GetAll(g.ctx, "many/none"); err != nil || len(got) != 0 {
		t.Errorf("%d values, %v", len(got), err)
	}
	if err := s.PutAll(g.ctx, map[string][]byte{"fine": nil, "not fine": nil}); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Error(err)
	}

	u, err := s.SignURL(g.ctx, "many/007", time.Minute)
	g.must(err)
	r, err := http.NewRequestWithContext(g.ctx, http.MethodGet, u.URL, nil)
	g.must(err)
	resp, err := http.DefaultClient.Do(r)
	g.must(err)
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "many/007" || time.Until(u.Expires) > time.Minute {
		t.Errorf("%q, %v, until %s", b, err, u.Expires)
	}

	listener := *s
	listener.Host = g.nodes.Peers()[1].URL
	g.must(listener.Post(g.ctx, s.Session.Delegation))
	g.follow(s, &listener)
}

// follow writes through one host until another tells of it, and then tells what comes after.
func (g *group) follow(writer, listener *client.Space) {
	g.Helper()
	heard := make(chan client.Change)
	go func() {
		defer close(heard)
		for c, err := range listener.Changes(g.ctx, "feed", "") {
			if err != nil {
				g.Error(err)
			}
			heard <- c
			return
		}
	}()
	var first client.Change
	for n := 0; first.ID == ""; n++ { // it begins when it is connected
		g.must(writer.Put(g.ctx, fmt.Sprintf("feed/%03d", n), []byte("x")))
		select {
		case first = <-heard:
		case <-time.After(50 * time.Millisecond):
		}
	}
	if first.Ability != "tinycloud.kv/put" || first.Service != "kv" || first.Time.IsZero() || first.Actor == "" {
		g.Errorf("%+v", first)
	}
	g.must(writer.Put(g.ctx, "elsewhere", []byte("x")))
	g.must(writer.Delete(g.ctx, first.Path))
	for c, err := range listener.Changes(g.ctx, "feed", first.ID) {
		g.must(err)
		if c.Path == "elsewhere" {
			g.Errorf("%+v", c)
		}
		if c.Path == first.Path && c.Ability == "tinycloud.kv/del" {
			return
		}
	}
}
