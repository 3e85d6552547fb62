package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

// TestMain lets the test binary be the program itself, under its name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tinycloud-peer": func() { setClock(); setServices(); main() }})
}

// clockOff sets by how much the clock of a node that a test runs is off, as a duration; negative is behind.
const clockOff = "TEST_CLOCK_OFF="

// setClock sets the clock of this process as the test that started it wants it.
func setClock() {
	off, err := time.ParseDuration(os.Getenv(strings.TrimSuffix(clockOff, "=")))
	if err == nil {
		clock = func() time.Time { return time.Now().Add(off) }
	}
}

// withCounter has a node that a test runs serve a counter beside key-value.
const withCounter = "TEST_COUNTER="

// withoutDatabases has a node that a test runs serve key-value alone, as releases with other services do.
const withoutDatabases = "TEST_WITHOUT_SQL="

// withStaleSQL has a node that a test runs answer queries as the history was up to so long ago, which is a defect.
const withStaleSQL = "TEST_STALE_SQL="

// staleSQL is databases that don't look at the history each time.
type staleSQL struct {
	*sql.Service
	within time.Duration

	mu    sync.Mutex
	known map[string]known
}

type known struct {
	state []byte
	at    time.Time
}

func (s *staleSQL) Invoke(w http.ResponseWriter, r *http.Request, c service.Call) error {
	c.Store = staleStore{c.Store, s}
	return s.Service.Invoke(w, r, c)
}

type staleStore struct {
	service.Store
	s *staleSQL
}

func (x staleStore) ServiceState(ctx context.Context, space tinycloud.SpaceID, name, about string) ([]byte, error) {
	x.s.mu.Lock()
	k, ok := x.s.known[about]
	x.s.mu.Unlock()
	if ok && time.Since(k.at) < x.s.within {
		return k.state, nil
	}
	state, err := x.Store.ServiceState(ctx, space, name, about)
	if err == nil {
		x.s.mu.Lock()
		x.s.known[about] = known{state, time.Now()}
		x.s.mu.Unlock()
	}
	return state, err
}

func setServices() {
	if within, err := time.ParseDuration(os.Getenv(strings.TrimSuffix(withStaleSQL, "="))); err == nil {
		withoutSQL = true
		services = append(services, &staleSQL{Service: sql.New(sql.Options{}), within: within, known: map[string]known{}})
		return
	}
	withoutSQL = os.Getenv(strings.TrimSuffix(withoutDatabases, "=")) != ""
	if os.Getenv(strings.TrimSuffix(withCounter, "=")) != "" {
		services = append(services, servicetest.Counter{Form: 1})
	}
}

// TestScripts run the program as a user does. Each has a directory of its own and no settings.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			// No tinycloud.toml is found above the directory.
			e.Setenv("TINYCLOUD_CONFIG_FILE", filepath.Join(e.WorkDir, "empty.toml"))
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			return os.WriteFile(filepath.Join(e.WorkDir, "empty.toml"), nil, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await, "wallet": wallet, "sign": sign},
	})
}
