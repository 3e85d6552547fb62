package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// oneHost are processes that share a database, each by a way of its own that can be cut.
type oneHost struct {
	*group
	server    *testservers.Database
	processes []*cluster.Peer
	ways      []*cluster.WAN
	env       []string
	stale     bool // a process may answer as the history was a while ago
}

// startOneHost runs processes with one secret on an empty database, and has the owner signed in.
func startOneHost(t *testing.T, server *testservers.Database, processes int, env ...string) *oneHost {
	t.Helper()
	g := startGroup(t, 0)
	secret := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("one host ", 8)))
	h := &oneHost{group: g, server: server, env: append([]string{"TINYCLOUD_KEYS_SECRET=" + secret}, env...)}
	for range processes {
		h.start()
	}
	g.must(g.owner.Host(g.ctx, h.processes[0]))
	_, err := g.owner.SignIn(g.ctx, h.processes[0])
	g.must(err)
	return h
}

// start adds a process.
func (h *oneHost) start() *cluster.Peer {
	h.Helper()
	w, err := cluster.NewWAN(h.Context(), h.server.Addr, 0)
	h.must(err)
	h.Cleanup(func() { _ = w.Close() })
	dsn := strings.Replace(h.server.DSN, h.server.Addr, w.HostPort(), 1)
	p, err := h.nodes.Add(h.ctx, append([]string{"TINYCLOUD_STORAGE_DATABASE=" + dsn}, h.env...)...)
	h.must(err)
	h.processes, h.ways = append(h.processes, p), append(h.ways, w)
	return p
}

// asker is a client that asks for registers: rows of a table, or keys.
type asker struct {
	*oneHost
	id   int
	hist *history
	rand *rand.Rand
	seen map[string]string // values by register, as it saw them last
	n    int               // values that it made
}

// patience of a client, for one answer.
const clientPatience = 4 * time.Second

// work asks for registers until the context ends.
func (c *asker) work(ctx context.Context, registers []string) {
	for ctx.Err() == nil {
		c.once(ctx, registers[c.rand.IntN(len(registers))], c.processes[c.rand.IntN(len(c.processes))])
	}
}

// once asks a process for one thing of a register.
func (c *asker) once(ctx context.Context, name string, p *cluster.Peer) {
	in := asked{register: name, verb: read}
	inTable := strings.HasPrefix(name, "row/")
	switch n := c.rand.IntN(10); {
	case n < 4:
	case n < 6:
		in.verb = write
	case n < 9:
		in.verb, in.from = swap, c.seen[name]
	case !inTable:
		in.verb = remove
	}
	if in.verb == swap && in.from == "" {
		in.verb = read
		if !inTable {
			in.verb = create
		}
	}
	cut := in.verb == swap && !inTable && c.rand.IntN(4) == 0 // deletes the value that it is
	if in.verb == write || in.verb == swap && !cut || in.verb == create {
		c.n++
		in.to = fmt.Sprintf("%d.%d", c.id, c.n)
	}
	// A request that began is not given up: what comes of it is of the history.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clientPatience)
	defer cancel()
	call := c.hist.now()
	ask := c.askKey
	if inTable {
		ask = c.askRow
	}
	out, err := ask(ctx, p, in)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED): // nobody was asked
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
		return
	case errors.Is(err, errUnanswered):
		out = told{unknown: true}
	case err != nil:
		c.Errorf("client %d: %s at %s: %v", c.id, describe(in, out), p.Name, err)
		return
	}
	c.hist.note(c.id, in, call, out)
	if in.verb == read && !out.unknown {
		c.seen[name] = out.value
	} else if out.done && in.verb != remove {
		c.seen[name] = in.to
	}
}

// errUnanswered is of a request that may have been carried out.
var errUnanswered = errors.New("no answer")

// call posts an invocation, and returns what was answered by a process that could.
func (c *asker) call(ctx context.Context, p *cluster.Peer, token string, header map[string]string, body string) (cluster.Answer, error) {
	a, err := c.owner.Call(ctx, p, http.MethodPost, "/invoke", token, header, strings.NewReader(body))
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return a, err
	case err != nil || a.Status == http.StatusServiceUnavailable:
		return a, errUnanswered
	}
	return a, nil
}

func (c *asker) askKey(ctx context.Context, p *cluster.Peer, in asked) (told, error) {
	ability, header, body := "put", map[string]string{}, in.to
	switch in.verb {
	case read:
		ability = "get"
	case remove:
		ability = "del"
	case swap:
		if in.to == "" {
			ability = "del"
		}
		header["If-Match"] = `"blake3-` + hexOf(tinycloud.Sum([]byte(in.from))) + `"`
	case create:
		header["If-None-Match"] = "*"
	}
	a, err := c.call(ctx, p, c.owner.Token("kv/"+in.register, "tinycloud.kv/"+ability), header, body)
	if err != nil {
		return told{}, err
	}
	out := told{done: a.Status == http.StatusOK, count: -1}
	switch {
	case in.verb == read && a.Status == http.StatusOK:
		out.value = a.Body
	case a.Status == http.StatusOK, a.Status == http.StatusNotFound && (in.verb == read || in.verb == remove), a.Status == http.StatusPreconditionFailed:
	default:
		return out, fmt.Errorf("%d %s", a.Status, a.Body)
	}
	return out, nil
}

func hexOf(h tinycloud.Hash) string { return fmt.Sprintf("%x", h[:]) }

func (c *asker) askRow(ctx context.Context, p *cluster.Peer, in asked) (told, error) {
	ability, body := "write", map[string]any{"action": "execute", "sql": "UPDATE registers SET value = ?, n = n + 1 WHERE name = ?", "params": []any{in.to, in.register}}
	switch in.verb {
	case read:
		ability, body = "read", map[string]any{"action": "query", "sql": "SELECT value, n FROM registers WHERE name = ?", "params": []any{in.register}}
	case swap:
		body["sql"] = body["sql"].(string) + " AND value = ?"
		body["params"] = []any{in.to, in.register, in.from}
	}
	b, err := json.Marshal(body)
	if err != nil {
		return told{}, err
	}
	a, err := c.call(ctx, p, c.owner.Token(database, "tinycloud.sql/"+ability), nil, string(b))
	if err != nil {
		return told{}, err
	}
	if a.Status != http.StatusOK {
		return told{}, fmt.Errorf("%d %s", a.Status, a.Body)
	}
	var answer struct {
		Changes int
		Rows    [][2]any
	}
	if err := json.Unmarshal([]byte(a.Body), &answer); err != nil {
		return told{}, err
	}
	if in.verb != read {
		return told{done: answer.Changes == 1}, nil
	}
	if len(answer.Rows) != 1 {
		return told{}, fmt.Errorf("%d rows of %s", len(answer.Rows), in.register)
	}
	value, _ := answer.Rows[0][0].(string)
	count, _ := answer.Rows[0][1].(float64)
	return told{value: value, count: int(count)}, nil
}

// round has clients ask for registers of their own while something happens to the processes, and checks their history.
func (h *oneHost) round(number, clients int, happen func()) (wrong string, of int) {
	h.Helper()
	hist := newHistory()
	var registers []string
	for i := range 6 {
		name := fmt.Sprintf("row/%d/%d", number, i)
		h.write(h.processes[0], "INSERT INTO registers VALUES(?, 'first', 0)", name)
		hist.first[name] = register{value: "first"}
		registers = append(registers, name)
	}
	if h.stale {
		h.await(registers)
	}
	for i := range 3 {
		registers = append(registers, fmt.Sprintf("key/%d/%d", number, i))
	}
	ctx, stop := context.WithCancel(h.ctx)
	var wg sync.WaitGroup
	for id := range clients {
		c := &asker{oneHost: h, id: id, hist: hist, rand: rand.New(rand.NewPCG(uint64(number), uint64(id))), seen: map[string]string{}}
		wg.Go(func() { c.work(ctx, registers) })
	}
	happen()
	stop()
	wg.Wait()
	// Whatever is still open shows now, on every process.
	last := &asker{oneHost: h, id: clients, hist: hist}
	for _, p := range h.processes {
		for _, name := range registers {
			last.final(p, asked{register: name, verb: read})
		}
	}
	wrong, of, unknown := hist.check(2 * time.Minute)
	h.Logf("round %d: %d operations, %d without an answer", number, of, unknown)
	return wrong, of
}

// await returns when all processes have these rows, which an answer from before them knows nothing of.
func (h *oneHost) await(rows []string) {
	h.Helper()
	c := &asker{oneHost: h}
	for _, p := range h.processes {
		for _, name := range rows {
			h.must(cluster.Poll(h.ctx, 20*time.Millisecond, func() (bool, error) {
				_, err := c.askRow(h.ctx, p, asked{register: name, verb: read})
				return err == nil, nil
			}))
		}
	}
}

// final reads a register, however long that takes.
func (c *asker) final(p *cluster.Peer, in asked) {
	c.Helper()
	ask := c.askKey
	if strings.HasPrefix(in.register, "row/") {
		ask = c.askRow
	}
	c.must(cluster.Poll(c.ctx, 50*time.Millisecond, func() (bool, error) {
		call := c.hist.now()
		out, err := ask(c.ctx, p, in)
		if err == nil {
			c.hist.note(c.id, in, call, out)
		}
		if errors.Is(err, errUnanswered) {
			err = nil
		}
		return !out.unknown && err == nil, err
	}))
}

// during lets some time pass: clients go on.
func (h *oneHost) during(d time.Duration) {
	select {
	case <-time.After(d):
	case <-h.ctx.Done():
	}
}

// trouble are what may happen to a process.
var trouble = []struct {
	name string
	do   func(h *oneHost, i int)
}{
	{"killed", func(h *oneHost, i int) {
		h.must(h.processes[i].Kill())
		h.during(300 * time.Millisecond)
		h.must(h.processes[i].Start(h.ctx))
	}},
	{"cut off", func(h *oneHost, i int) {
		h.ways[i].Cut()
		h.during(600 * time.Millisecond)
		h.ways[i].Mend()
	}},
	{"not heard", func(h *oneHost, i int) {
		h.ways[i].Hold()
		h.during(time.Duration(500+rand.IntN(8000)) * time.Millisecond) // some of it beyond what processes and the server wait
		h.ways[i].Release()
	}},
	{"paused", func(h *oneHost, i int) {
		h.must(h.processes[i].Pause())
		h.during(time.Duration(200+rand.IntN(2000)) * time.Millisecond)
		h.must(h.processes[i].Resume())
	}},
}

const registersTable = "CREATE TABLE registers(name TEXT PRIMARY KEY, value TEXT, n INTEGER)"

// Processes on one database answer as one would, while they are killed, cut off from the database and paused: rows of a table
// and keys are registers of which all clients see one order. LINEAR_ROUNDS says how often, on each kind of database with three
// processes; the tests have one of two processes killed and one cut off. The check finds a process that answers as the history
// was a while ago.
func TestOneHostIsLinearizable(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(testing.TB) *testservers.Database{"Postgres": testservers.Postgres}
	_, long := os.LookupEnv("LINEAR_ROUNDS")
	if long {
		kinds["MariaDB"] = testservers.MariaDB
	}
	rounds := scale(t, "LINEAR_ROUNDS", 1)
	for name, server := range kinds {
		t.Run(name, func(t *testing.T) {
			database := server(t)
			t.Run("whatever happens", func(t *testing.T) { testOneHost(t, database, rounds, long) })
			t.Run("a stale process is found", func(t *testing.T) { testStaleProcess(t, database.New()) })
		})
	}
}

func testOneHost(t *testing.T, server *testservers.Database, rounds int, long bool) {
	processes, clients := 2, 8
	if long {
		processes, clients = 3, 12
	}
	h := startOneHost(t, server, processes)
	h.longer(2 + rounds)
	h.write(h.processes[0], registersTable)
	sum := 0
	for n := range rounds {
		var happened []string
		wrong, of := h.round(n, clients, func() {
			h.during(300 * time.Millisecond)
			for k := range 2 {
				is := trouble[(n*2+k)%len(trouble)]
				i := (n + k) % processes
				happened = append(happened, h.processes[i].Name+" "+is.name)
				is.do(h, i)
				h.during(300 * time.Millisecond)
			}
		})
		if sum += of; wrong != "" {
			t.Fatalf("round %d, %s: %s", n, strings.Join(happened, ", "), wrong)
		}
	}
	t.Logf("%d operations", sum)
	// Files are never two processes'.
	_, err := h.nodes.Add(h.ctx, append([]string{"TINYCLOUD_STORAGE_DATABASE=" + server.DSN, "TINYCLOUD_STORAGE_DATADIR=" + h.processes[0].Dir + "/data"}, h.env...)...)
	if err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second process with the same data directory: %v", err)
	}
}

func testStaleProcess(t *testing.T, server *testservers.Database) {
	h := startOneHost(t, server, 2, withStaleSQL+"300ms")
	h.stale = true
	h.write(h.processes[0], registersTable)
	for n := range 20 {
		wrong, of := h.round(n, 8, func() { h.during(500 * time.Millisecond) })
		if wrong != "" {
			t.Logf("found among %d operations: %.600s", of, wrong)
			return
		}
	}
	t.Error("not found")
}
