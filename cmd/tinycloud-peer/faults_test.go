package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// single runs one peer that hosts the owner's Space.
func single(t *testing.T) (*group, *cluster.Peer) {
	t.Helper()
	g := startGroup(t, 0)
	return g, g.add()
}

// fill writes values until one is refused and returns the acknowledged ones. Refusals have to be the node's own.
func (g *group) fill(p *cluster.Peer, name string, size, most int) (acknowledged map[string]string, refusal error) {
	g.Helper()
	acknowledged = map[string]string{}
	for i := range most {
		key, value := fmt.Sprintf("%s/%d", name, i), strings.Repeat(fmt.Sprintf("%s %d. ", name, i), size/8)
		if err := g.owner.Put(g.ctx, p, key, []byte(value)); err != nil {
			return acknowledged, err
		}
		acknowledged[key] = value
	}
	return acknowledged, nil
}

func (g *group) readsAll(p *cluster.Peer, all ...map[string]string) {
	g.Helper()
	for _, values := range all {
		for key, value := range values {
			g.reads(key, value, p)
		}
	}
}

// TestFullDisk has a node's disk fill up. It refuses what it cannot keep, keeps what it acknowledged, answers
// reads, and takes writes again when there is room, without a restart.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128m"); err != nil {
		t.Fatalf("a disk of 128 MB (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	// A start needs 32 MiB for its index.
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGroup(t, 0)
	// Nothing is kept free: it is the disk that refuses.
	g.nodes = cluster.New(cluster.Options{Binary: g.binary, Dir: dir, Env: []string{"TINYCLOUD_STORAGE_RESERVE=0"}})
	t.Cleanup(func() { g.must(g.nodes.Close()) }) // before the disk goes
	p := g.add()
	large, err := g.fill(p, "large", 500_000, 100)
	if !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Fatalf("after %d values of 500 kB: %v", len(large), err)
	}
	small, err := g.fill(p, "small", 20_000, 2000)
	if !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Fatalf("after %d values of 20 kB: %v", len(small), err)
	}
	g.readsAll(p, large, small)
	g.must(os.Remove(ballast))
	more, err := g.fill(p, "more", 100_000, 5)
	if err != nil {
		t.Errorf("with room again: %v", err)
	}
	g.must(p.Kill())
	g.must(p.Start(g.ctx))
	g.readsAll(p, large, small, more)
	t.Logf("%d large and %d small values before the disk was full", len(large), len(small))
}

// inject has calls of a running node fail with EIO until the returned function is called: all of them, or those on some files.
func (g *group) inject(p *cluster.Peer, calls string, files ...string) (end func()) {
	g.Helper()
	out := filepath.Join(g.TempDir(), "trace")
	args := []string{"-f", "-o", out, "-e", "trace=" + calls, "-e", "inject=" + calls + ":error=EIO", "-p", fmt.Sprint(p.PID())}
	for _, path := range files {
		args = append(args, "-P", path)
	}
	cmd := exec.CommandContext(g.ctx, "strace", args...)
	said, err := cmd.StderrPipe()
	g.must(err)
	g.must(cmd.Start())
	lines := bufio.NewScanner(said)
	attached := lines.Scan() && strings.Contains(lines.Text(), "attached")
	if !attached {
		g.Fatalf("strace: %q", lines.Text())
	}
	go func() {
		for lines.Scan() { // so that it never waits for a reader
		}
	}()
	return func() {
		g.Helper()
		g.must(cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait() // it ends by the signal
		if trace, err := os.ReadFile(out); err != nil || !strings.Contains(string(trace), "(INJECTED)") {
			g.Errorf("nothing was injected: %v", err)
		}
	}
}

// TestFailingDisk has the system refuse to write or to sync from some moment on. From then on no write is
// acknowledged; when the disk is well again writes are taken without a restart, and what was acknowledged is there.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string]string{"sync": "fsync,fdatasync", "write": "pwrite64,fsync"} {
		for kind, size := range map[string]int{"small": 2000, "large": 200_000} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				g, p := single(t)
				before, err := g.fill(p, "before", size, 20)
				g.must(err)
				end := g.inject(p, calls)
				for i := range 10 {
					err := g.owner.Put(g.ctx, p, fmt.Sprintf("during/%d", i), []byte(strings.Repeat("lost", size/4)))
					if !errors.Is(err, tinycloud.ErrUnavailable) {
						t.Errorf("write %d at a node whose disk fails: %v", i, err)
					}
				}
				g.readsAll(p, before)
				end()
				after, err := g.fill(p, "after", size, 20)
				g.must(err)
				g.must(p.Kill())
				g.must(p.Start(g.ctx))
				g.readsAll(p, before, after)
			})
		}
	}
}
