package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// Options of a [Cluster]. Binary and Dir are required.
type Options struct {
	Binary string   // path of tinycloud-peer
	Args   []string // before those of the serve command
	Env    []string // NAME=value pairs for every process, over the environment
	Dir    string   // under which each peer has a directory
	// Within is a command that runs another one somewhere, such as another network; it gets the peer's name.
	// The peers are then spoken to by the sockets in their data directories.
	Within func(name string) []string
	// Ways has the peers know each other by ways that can be cut, see [Peer.Way].
	Ways bool
}

// Cluster is a group of nodes. Its methods are for one goroutine.
type Cluster struct {
	o     Options
	peers []*Peer
}

// New returns a cluster without peers.
func New(o Options) *Cluster { return &Cluster{o: o} }

// Peers returns the peers in the order they were added.
func (c *Cluster) Peers() []*Peer { return c.peers }

// Run has peers that are added from now on run another program.
func (c *Cluster) Run(binary string) { c.o.Binary = binary }

// patience is how long a process may take to stop in order.
const patience = 5 * time.Second

// Close ends all processes: in order if they do so soon, else at once.
func (c *Cluster) Close() error {
	return Each(c.peers, func(_ int, p *Peer) error {
		defer p.Admin.Close()
		if p.Way != nil {
			defer p.Way.Close()
		}
		if p.process == nil {
			return nil
		}
		err := closed(p.process.lease)
		soon := time.NewTimer(patience)
		defer soon.Stop()
		select {
		case <-p.process.done:
		case <-soon.C:
		}
		return errors.Join(err, p.Kill())
	})
}

// Peer is one node, running or not. Its identity, data and addresses outlive its processes.
type Peer struct {
	Name  string
	Dir   string
	URL   string // of the HTTP API
	Stats string // URL of the metrics
	Admin *admin.Client
	Token string // of the admin API

	Secret []byte // from which its keys follow

	Way *WAN // by which other peers know it; nil without [Options.Ways]

	o       Options
	env     []string
	process *process // nil while it is down
}

// process is one life of a peer.
type process struct {
	cmd   *exec.Cmd
	lease io.Closer     // closing it asks the process to stop
	done  chan struct{} // closed when it is gone
	err   error         // valid when done is closed
}

// Add makes a peer and starts it, with NAME=value pairs of its own. It has free ports of the loopback
// interface.
func (c *Cluster) Add(ctx context.Context, env ...string) (*Peer, error) {
	p := &Peer{Name: fmt.Sprintf("peer%d", len(c.peers)+1), o: c.o}
	p.Dir = filepath.Join(c.o.Dir, p.Name)
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	// An empty file, so that none above the directory is found.
	settings := filepath.Join(p.Dir, "tinycloud.toml")
	if err := os.WriteFile(settings, nil, 0o600); err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	p.Secret = secret[:]
	token := rand.Text()
	p.URL = "http://127.0.0.1:" + ports[0]
	p.Stats = "http://127.0.0.1:" + ports[1] + "/metrics"
	p.Admin, p.Token = admin.Remote(p.URL, token), token
	p.env = append(foreign(os.Environ()),
		"TINYCLOUD_CONFIG_FILE="+settings,
		"TINYCLOUD_KEYS_SECRET="+base64.RawURLEncoding.EncodeToString(secret[:]),
		"TINYCLOUD_ADMIN_SECRET="+token,
		"TINYCLOUD_ADDRESS=127.0.0.1",
		"TINYCLOUD_PORT="+ports[0],
		"TINYCLOUD_PROMETHEUS_PORT="+ports[1],
		"TINYCLOUD_ADMIN_PORT=0",
		listenOn+ports[2],
		"TINYCLOUD_STORAGE_DATADIR="+p.data(),
	)
	if c.o.Ways {
		if p.Way, err = NewWAN(ctx, net.JoinHostPort("127.0.0.1", ports[2]), 0); err != nil {
			return nil, err
		}
		p.env = append(p.env, "TINYCLOUD_P2P_ANNOUNCE="+p.Way.Addr())
	}
	p.env = append(append(p.env, c.o.Env...), env...)
	if c.o.Within != nil {
		p.Admin.Close()
		p.Admin, p.URL = admin.Local(p.data()), socketURL(node.Socket(p.data()))
	}
	c.peers = append(c.peers, p)
	return p, p.Start(ctx)
}

func (p *Peer) data() string { return filepath.Join(p.Dir, "data") }

// Datadir is the peer's data directory.
func (p *Peer) Datadir() string { return p.data() }

// socketURL names a socket as the host of a URL, which [dial] understands.
func socketURL(path string) string {
	return "http://" + hex.EncodeToString([]byte(path)) + socketSuffix
}

const socketSuffix = ".socket"

// dial connects to a TCP address, or to the socket that a host of [socketURL] names.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if name, ok := strings.CutSuffix(host, socketSuffix); ok {
		path, err := hex.DecodeString(name)
		if err != nil {
			return nil, err
		}
		return d.DialContext(ctx, "unix", string(path))
	}
	return d.DialContext(ctx, network, addr)
}

// Run has a peer run another program from its next start on.
func (p *Peer) Run(binary string) { p.o.Binary = binary }

// Move gives a peer that is down another port for the other peers.
func (p *Peer) Move() error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	p.env = append(p.env, listenOn+ports[0]) // the last one counts
	return nil
}

// Set changes settings of a peer that is down, by NAME=value pairs: the last one counts.
func (p *Peer) Set(env ...string) { p.env = append(p.env, env...) }

// Port is where the peer listens for other peers.
func (p *Peer) Port() (port string) {
	for _, pair := range p.env {
		if found, ok := strings.CutPrefix(pair, listenOn); ok {
			port = found
		}
	}
	return port
}

const listenOn = "TINYCLOUD_P2P_LISTEN=/ip4/127.0.0.1/tcp/"

// foreign drops the variables that would configure a node.
func foreign(environ []string) []string {
	var out []string
	for _, pair := range environ {
		upper := strings.ToUpper(pair)
		if !strings.HasPrefix(upper, "TINYCLOUD_") && !strings.HasPrefix(upper, "ROCKET_") {
			out = append(out, pair)
		}
	}
	return out
}

// FreePort returns a TCP port that nobody listens on.
func FreePort() (string, error) {
	ports, err := freePorts(1)
	if err != nil {
		return "", err
	}
	return ports[0], nil
}

// given are the ports that peers of this process have, whether they run or not.
var given sync.Map

// freePorts returns TCP ports that nobody listens on and no other peer of this process has. They lie below those that
// systems give to whoever asks for any port, so that nobody gets one while its peer is down.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := strconv.Itoa(10_000 + mathrand.IntN(20_000))
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			continue
		}
		defer l.Close()
		if _, taken := given.LoadOrStore(port, true); !taken {
			ports = append(ports, port)
		}
	}
	return nil, errors.New("no free TCP ports")
}

// Start starts the peer's process, with flags of serve, and waits until it answers.
func (p *Peer) Start(ctx context.Context, flags ...string) error {
	log, err := os.OpenFile(p.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	words := append(append([]string{p.o.Binary}, p.o.Args...), append([]string{"serve", "--lease"}, flags...)...)
	if p.o.Within != nil {
		words = append(p.o.Within(p.Name), words...)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.Dir, p.env, log, log
	lease, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, lease.Close())
	}
	proc := &process{cmd: cmd, lease: lease, done: make(chan struct{})}
	go func() {
		proc.err = cmd.Wait()
		close(proc.done)
	}()
	p.process = proc
	return p.await(ctx, proc)
}

// await waits until the peer answers or its process ends.
func (p *Peer) await(ctx context.Context, proc *process) error {
	return Poll(ctx, 20*time.Millisecond, func() (bool, error) {
		select {
		case <-proc.done:
			return false, fmt.Errorf("%s ended: %v\n%s", p.Name, proc.err, p.LogTail())
		default:
		}
		_, err := p.Admin.Node(ctx)
		return err == nil, nil
	})
}

// Verb runs the program with the settings of the peer and returns what it printed.
func (p *Peer) Verb(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.o.Binary, append(append([]string{}, p.o.Args...), args...)...)
	cmd.Dir, cmd.Env = p.Dir, p.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// PID is the id of the running process.
func (p *Peer) PID() int { return p.process.cmd.Process.Pid }

// Metrics reads what the peer tells Prometheus: values by name and labels, and the text.
func (p *Peer) Metrics(ctx context.Context) (values map[string]float64, text string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Stats, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, "", err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("metrics of %s: %d %.200s", p.Name, resp.StatusCode, b)
	}
	values = map[string]float64{}
	for line := range strings.Lines(string(b)) {
		name, number, ok := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(line, "#") || !ok {
			continue
		}
		if i := strings.LastIndexByte(number, ' '); i >= 0 { // a label with a space
			name, number = name+" "+number[:i], number[i+1:]
		}
		if values[name], err = strconv.ParseFloat(number, 64); err != nil {
			return nil, "", fmt.Errorf("metrics of %s: %w", p.Name, err)
		}
	}
	return values, string(b), nil
}

// LogFile is where the peer's output goes.
func (p *Peer) LogFile() string { return filepath.Join(p.Dir, "log") }

// LogTail returns the last lines of the peer's output.
func (p *Peer) LogTail() string {
	b, err := os.ReadFile(p.LogFile())
	if err != nil {
		return err.Error()
	}
	const most = 4 << 10
	return string(b[max(0, len(b)-most):])
}

// Stop ends the process in order. The error says how it ended, if not well.
func (p *Peer) Stop() error {
	if p.process == nil {
		return nil
	}
	err := p.process.cmd.Process.Signal(syscall.SIGTERM)
	<-p.process.done
	err = errors.Join(err, p.process.err, closed(p.process.lease))
	p.process = nil
	return err
}

// Kill ends the process without a chance to finish anything, and is no error when it had ended.
func (p *Peer) Kill() error {
	if p.process == nil {
		return nil
	}
	err := p.process.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-p.process.done
	err = errors.Join(err, closed(p.process.lease))
	p.process = nil
	return err
}

// closed closes what waiting for the process may have closed already.
func closed(c io.Closer) error {
	if err := c.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Poll asks until the answer is yes, an error, or the context ends.
func Poll(ctx context.Context, every time.Duration, ask func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := ask(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Each calls f for every item at once and returns the errors.
func Each[T any](items []T, f func(int, T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(i, item) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
