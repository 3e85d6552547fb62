package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// apart is set in the process that TestNAT runs in namespaces of its own.
const apart = "TINYCLOUD_TEST_NAT"

// TestNAT runs peers behind routers that translate addresses and let nothing in that was not asked for.
//
// It runs itself again with its own network and mounts: named namespaces live in a file system that only
// that process sees, so that nothing is left, however it ends.
func TestNAT(t *testing.T) {
	if os.Getenv(apart) != "" {
		behindRouters(t)
		return
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v: apt-get install iproute2 nftables", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestNAT$", "-test.v", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), apart+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, t.Output())
	cmd.Stderr = cmd.Stdout
	err = cmd.Run()
	if errors.Is(err, syscall.EPERM) {
		t.Fatal("network namespaces need root (CAP_SYS_ADMIN): ", err)
	}
	if err != nil || !strings.Contains(out.String(), "--- PASS: TestNAT") {
		t.Fatal(err)
	}
}

// internet is the namespace of this process, a router between networks with public addresses.
type internet struct {
	*group
	namespaces map[string]string // by peer
}

func (n *internet) run(words ...string) {
	n.Helper()
	if out, err := exec.CommandContext(n.ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
		n.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
}

func (n *internet) in(namespace string, words ...string) {
	n.Helper()
	n.run(append([]string{"ip", "netns", "exec", namespace}, words...)...)
}

// attach makes a namespace whose interface "wan" leads to another one, "" for this.
func (n *internet) attach(name, to, network string) {
	n.Helper()
	n.run("ip", "netns", "add", name)
	n.in(name, "ip", "link", "set", "lo", "up")
	n.run("ip", "link", "add", "to-"+name, "type", "veth", "peer", "name", "wan", "netns", name)
	n.in(name, "ip", "addr", "add", network+".2/24", "dev", "wan")
	n.in(name, "ip", "link", "set", "wan", "up")
	n.in(name, "ip", "route", "add", "default", "via", network+".1")
	ours := n.run
	if to != "" {
		n.run("ip", "link", "set", "to-"+name, "netns", to)
		ours = func(words ...string) { n.in(to, words...) }
	}
	ours("ip", "addr", "add", network+".1/24", "dev", "to-"+name)
	ours("ip", "link", "set", "to-"+name, "up")
}

// router makes a namespace that others are behind.
func (n *internet) router(name, network string) {
	n.Helper()
	n.attach(name, "", network)
	n.in(name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	n.in(name, "nft", `
		table ip nat { chain post { type nat hook postrouting priority 100; oifname "wan" masquerade; }; };
		table ip filter {
			chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; oifname "wan" accept; };
			chain input { type filter hook input priority 0; policy drop; ct state established,related accept; iifname != "wan" accept; };
		}`)
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE}, {"namespaces", "/run", "tmpfs", 0}} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			t.Fatalf("mount on %s: %v", m.target, err)
		}
	}
	n := &internet{group: startGroup(t, 0), namespaces: map[string]string{}}
	n.nodes = cluster.New(cluster.Options{
		Binary: n.binary, Dir: t.TempDir(), Env: []string{"TINYCLOUD_P2P_LISTEN=/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1"},
		Within: func(name string) []string { return []string{"ip", "netns", "exec", n.namespaces[name]} },
	})
	n.run("ip", "link", "set", "lo", "up")
	n.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	return n
}

// host starts a peer in a namespace and hosts the Space there.
func (n *internet) host(namespace string) *cluster.Peer {
	n.Helper()
	n.namespaces[fmt.Sprintf("peer%d", len(n.nodes.Peers())+1)] = namespace
	p, err := n.nodes.Add(n.ctx)
	n.must(err)
	n.must(n.owner.Host(n.ctx, p))
	return p
}

func behindRouters(t *testing.T) {
	n := newInternet(t)
	n.attach("public", "", "9.9.1")
	n.router("router1", "9.9.2")
	n.router("router2", "9.9.3")
	n.attach("home1", "router1", "192.168.1")
	n.attach("home2", "router2", "192.168.2")

	outside := n.host("public")
	_, err := n.owner.SignIn(n.ctx, outside)
	n.must(err)
	n.put(outside, "from/outside", "hello")
	one := n.host("home1")
	n.must(n.owner.Join(n.ctx, one, outside))
	n.same()
	n.put(one, "from/home", "hello yourself")
	n.same()
	n.reads("from/outside", "hello", outside, one)
	n.reads("from/home", "hello yourself", outside, one)
	t.Log("a peer behind a router replicates with one outside")

	two := n.host("home2")
	n.must(n.owner.Join(n.ctx, two, outside))
	n.connected(one, two)
	n.connected(two, one)
	n.put(two, "from/another/home", "hello all")
	n.same()
	t.Log("two peers behind routers are connected")

	// They come to be so without the third.
	n.must(cluster.Poll(n.ctx, 50*time.Millisecond, func() (bool, error) {
		log, err := os.ReadFile(one.LogFile())
		other, err2 := os.ReadFile(two.LogFile())
		return bytes.Contains(append(log, other...), []byte("connected directly")), errors.Join(err, err2)
	}))
	n.must(outside.Stop())
	n.connected(one, two)
	n.put(two, "from/two", "alone")
	n.same(one, two)
	n.reads("from/two", "alone", one, two)
	t.Log("two peers behind routers do without a third")
}
