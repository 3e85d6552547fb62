//go:build unix

package testservers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTime = 30 * time.Second // on a machine that does other things too
	startPoll = 20 * time.Millisecond
)

// engine is one kind of server.
type engine interface {
	name() string
	// prepare makes the data of a new server below dir.
	prepare(ctx context.Context, dir string) error
	// command runs the server in the foreground.
	command(dir string, port int) *exec.Cmd
	// ping returns nil when the server answers.
	ping(ctx context.Context, port int) error
	// quit is the signal that ends it at once with nothing left in the system.
	quit() syscall.Signal
}

// process is a server with its data.
type process struct {
	engine engine
	dir    string
	port   int

	mu  sync.Mutex
	cmd *exec.Cmd // nil while it doesn't run
}

// launch makes a server's data and starts it. The caller ends it with remove.
func launch(ctx context.Context, e engine) (*process, error) {
	dir, err := os.MkdirTemp("", "tinycloud-"+e.name()+"-")
	if err != nil {
		return nil, err
	}
	p := &process{engine: e, dir: dir}
	if err := e.prepare(ctx, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// Someone else may take the port before the server does.
	for range 5 {
		if p.port, err = freePort(); err != nil {
			break
		}
		if err = p.start(ctx); err == nil {
			return p, nil
		} else if !errors.Is(err, errEnded) {
			break
		}
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

// freePort chooses from below the ports that the system gives to clients, so that none takes it while the
// server is down.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 20000 + rand.IntN(12000)
		var l net.Listener
		if l, err = net.Listen("tcp", address(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

var errEnded = errors.New("ended while it started")

// start runs the server and waits until it answers.
func (p *process) start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return errors.New(p.engine.name() + " is running already")
	}
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	cmd := p.engine.command(p.dir, p.port)
	cmd.Stdout, cmd.Stderr = log, log // files: no goroutine copies
	tether(cmd)
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		err := p.engine.ping(ctx, p.port)
		if exited(cmd.Process.Pid) {
			return fmt.Errorf("%s %w: %w\n%s", p.engine.name(), errEnded, errors.Join(cmd.Wait(), err), p.log())
		}
		if err == nil {
			p.cmd = cmd
			return nil
		}
		select {
		case <-ctx.Done():
			_ = cmd.Process.Kill() // it was alive a moment ago
			_ = cmd.Wait()         // says that it was killed
			return fmt.Errorf("%s does not answer: %w\n%s", p.engine.name(), err, p.log())
		case <-tick.C:
		}
	}
}

// log returns the end of what the server said.
func (p *process) log() string {
	b, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-4000):]))
}

// signal sends a signal to the server and its children.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errors.New(p.engine.name() + " is not running")
	}
	pid := p.cmd.Process.Pid
	if sig != syscall.SIGSTOP {
		return signalAll(pid, sig)
	}
	// The server itself first: it could have another child while its children are told.
	if err := errors.Join(syscall.Kill(pid, sig), await(stopped, []int{pid})); err != nil {
		return err
	}
	if err := signalAll(pid, sig); err != nil {
		return err
	}
	return await(stopped, children(pid))
}

func signalAll(pid int, sig syscall.Signal) error {
	below := children(pid)
	err := syscall.Kill(pid, sig)
	for _, child := range below {
		if e := syscall.Kill(child, sig); e != nil && !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// await waits until processes are as they should be: what is gone has left the memory and the ports it shared.
func await(as func(pid int) bool, pids []int) error {
	deadline := time.NewTimer(startTime)
	defer deadline.Stop()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for _, pid := range pids {
		for !as(pid) {
			select {
			case <-deadline.C:
				return fmt.Errorf("process %d does not obey", pid)
			case <-tick.C:
			}
		}
	}
	return nil
}

// kill ends the server as a crash does, and returns when it is gone.
func (p *process) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errors.New(p.engine.name() + " is not running")
	}
	pid := p.cmd.Process.Pid
	err := syscall.Kill(pid, syscall.SIGSTOP) // it begets no more children
	below := children(pid)
	err = errors.Join(err, signalAll(pid, syscall.SIGKILL))
	_ = p.cmd.Wait() // says that it was killed
	p.cmd = nil
	return errors.Join(err, await(exited, below))
}

// remove ends the server, if it runs, and removes its data.
func (p *process) remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		pid := p.cmd.Process.Pid
		_ = syscall.Kill(pid, p.engine.quit()) // gone already is as good
		_ = signalAll(pid, syscall.SIGCONT)    // it may be paused
		_ = p.cmd.Wait()
		p.cmd = nil
	}
	return os.RemoveAll(p.dir)
}

// run runs a client or a tool and returns what it printed.
func run(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, text)
	}
	return text, nil
}

// missing is what a test says when its server isn't installed.
func missing(what, packages string) error {
	return fmt.Errorf("%s is not installed and the tests need it: run ./scripts/install (it installs %s)", what, packages)
}
