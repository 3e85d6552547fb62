package node_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// TestRoom has a disk fill up and get room again; it is looked at once a second.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, looks := map[string]int64{"database": 1000, "values": 1000}, 0
		var failure error
		var lines bytes.Buffer
		check := node.Room(100, func(dir string) (int64, error) { looks++; return free[dir], failure }, slog.New(slog.NewTextHandler(&lines, nil)))
		want := func(full bool) {
			t.Helper()
			for range 100 {
				if err := check(); full != errors.Is(err, tinycloud.ErrFull) || !full && err != nil {
					t.Errorf("full %v: %v", full, err)
				}
			}
			time.Sleep(time.Second)
		}
		want(false)
		free["values"] = 99
		want(true)
		want(true)
		free["values"] = 100
		want(false)
		free["database"], failure = 0, fs.ErrNotExist
		want(false)
		if looks != 10 {
			t.Errorf("%d looks in 5 seconds at 2 disks", looks)
		}
		if n := strings.Count(lines.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings: %s", n, lines.String())
		}
	})
}

// TestFullDisk runs a node whose disk is fuller than it may be: nothing is added, by clients or by hosts; what is there is
// read and deleted.
func TestFullDisk(t *testing.T) {
	cfg := settings(t)
	n, stop := run(t, cfg)
	owner, session := captest.RandomWallet(), captest.RandomSession()
	space := owner.Space("default")
	_, did := call(t, http.MethodGet, n.URL()+"/peer/generate/"+url.PathEscape(space.String()), "", "")
	grant := owner.SignDelegation(captest.DelegationOptions{Audience: session.URI(), Caps: captest.Caps{
		space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get", "tinycloud.kv/del"},
	}})
	for _, header := range []string{owner.SignHost(space, did), grant} {
		if status, answer := call(t, http.MethodPost, n.URL()+"/delegate", header, ""); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	invoke := func(ability, key, body string) (int, string) {
		return call(t, http.MethodPost, n.URL()+"/invoke", session.Invoke(captest.TokenOptions{
			Caps: captest.Caps{space.String() + "/kv/" + key: {ability}}, Proofs: []tinycloud.Hash{captest.ID(grant)},
		}), body)
	}
	for _, key := range []string{"a", "b"} {
		if status, answer := invoke("tinycloud.kv/put", key, key); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	stop()
	cfg.Storage.Reserve = math.MaxInt64
	n, _ = run(t, cfg)
	for _, body := range []string{"small", strings.Repeat("large", 1<<16)} {
		if status, answer := invoke("tinycloud.kv/put", "c", body); status != http.StatusInsufficientStorage || answer != "This node has no room left" {
			t.Errorf("put of %d bytes: %d %s", len(body), status, answer)
		}
	}
	another := owner.SignDelegation(captest.DelegationOptions{Audience: session.URI(), Caps: captest.Caps{space.String() + "/kv/x": {"tinycloud.kv/get"}}})
	if status, answer := call(t, http.MethodPost, n.URL()+"/delegate", another, ""); status != http.StatusInsufficientStorage {
		t.Errorf("delegate: %d %s", status, answer)
	}
	if status, answer := invoke("tinycloud.kv/get", "a", ""); status != http.StatusOK || answer != "a" {
		t.Errorf("get: %d %s", status, answer)
	}
	if status, answer := invoke("tinycloud.kv/del", "b", ""); status != http.StatusOK {
		t.Errorf("delete: %d %s", status, answer)
	}
	store := n.Replicated()
	if _, err := store.ApplyChecked(t.Context(), hostlog.CheckAll(space, nil)); !errors.Is(err, tinycloud.ErrFull) {
		t.Errorf("apply what was checked: %v", err)
	}
	if wants, err := store.Wants(t.Context(), space, 10); err != nil || len(wants) != 0 {
		t.Errorf("wants: %v, %v", wants, err)
	}
}

// TestOpenToFill warns of a node that others reach and that has no limit.
func TestOpenToFill(t *testing.T) {
	for variables, warns := range map[string]bool{
		"":                          false,
		"TINYCLOUD_ADDRESS=0.0.0.0": true,
		"TINYCLOUD_P2P_LISTEN=/ip4/0.0.0.0/tcp/0":                true,
		"TINYCLOUD_ADDRESS=0.0.0.0 TINYCLOUD_STORAGE_LIMIT=1000": false,
	} {
		var lines bytes.Buffer
		_, stop := runWith(t, settings(t, append(strings.Fields(variables), "TINYCLOUD_P2P_NAT=false")...), node.Options{Log: slog.New(slog.NewTextHandler(&lines, nil))})
		stop()
		if got := strings.Contains(lines.String(), "storage.limit: not set"); got != warns {
			t.Errorf("%s: %v: %s", variables, got, lines.String())
		}
	}
}
