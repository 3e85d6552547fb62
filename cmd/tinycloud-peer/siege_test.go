package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/attack"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

const (
	growth   = 64 << 10         // KiB of memory that an attack may cost
	honestly = 10 * time.Second // for a write to reach the other honest host under attack
)

// siege is two honest hosts of a Space, of which the first also hosts another owner's, under attack.
type siege struct {
	*group
	a, b    *cluster.Peer
	other   *cluster.Owner
	addr    string // of the Space at a
	front   peer.ID
	pulse   int
	secrets map[string][]byte // what nobody but hosts and clients of the Spaces may see
}

func newSiege(t *testing.T) *siege {
	t.Helper()
	s := &siege{group: startGroup(t, 2), other: cluster.NewOwner("other")}
	t.Cleanup(s.other.Close)
	s.a, s.b = s.nodes.Peers()[0], s.nodes.Peers()[1]
	s.must(s.other.Host(s.ctx, s.a))
	_, err := s.other.SignIn(s.ctx, s.a)
	s.must(err)
	s.put(s.a, "plans/secret", "the code is 0451 0451")
	s.must(s.other.Put(s.ctx, s.a, "others/diary", []byte("dear diary, nobody reads this")))
	s.same()
	view := s.view(s.a, s.owner)
	s.addr = view.Addrs[0]
	me, err := s.a.Admin.Node(s.ctx)
	s.must(err)
	s.front, err = peer.Decode(me.PeerID)
	s.must(err)
	s.secrets = map[string][]byte{
		"key": []byte("plans/secret"), "value": []byte("0451 0451"), "other key": []byte("others/diary"),
		"other value": []byte("nobody reads"), "space": []byte(s.owner.Space.String()), "other space": []byte(s.other.Space.String()),
		"owner": []byte(s.owner.Wallet.Address()), "other owner": []byte(s.other.Wallet.Address()),
		"next key": []byte("plans/next"), "next value": []byte("published while"),
	}
	digest := func(name string, h tinycloud.Hash) { s.secrets[name] = h[:] }
	digest("digest of the value", tinycloud.Sum([]byte("the code is 0451 0451")))
	digest("digest of the other value", tinycloud.Sum([]byte("dear diary, nobody reads this")))
	digest("head", s.heads(s.a)[0])
	for name, v := range map[string]node.SpaceView{
		"key of the second host": s.view(s.b, s.owner), "key in the other space": s.view(s.a, s.other),
	} {
		id, err := peer.Decode(v.PeerID)
		s.must(err)
		raw, err := p2p.Ed25519FromPeerID(id)
		s.must(err)
		s.secrets[name], s.secrets[name+", as text"] = raw, []byte(v.PeerID)
	}
	return s
}

func (s *siege) heads(p *cluster.Peer) (heads []tinycloud.Hash) {
	s.Helper()
	for _, text := range s.view(p, s.owner).Heads {
		h, err := tinycloud.ParseCID(text)
		s.must(err)
		heads = append(heads, h)
	}
	return heads
}

// under runs an attack on a while the honest hosts go on. The attack may not keep them from converging nor
// make a grow.
func (s *siege) under(name string, run func(s *siege)) {
	s.Run(name, func(t *testing.T) {
		g := *s.group
		g.T = t
		own := *s
		own.group = &g
		base := own.memory("VmRSS")
		own.forgetPeak()
		ctx, over := context.WithCancel(s.ctx)
		slowest := make(chan time.Duration, 1)
		go func() { slowest <- own.beat(ctx) }()
		var took time.Duration
		func() { // an attack that ends the test waits as well
			defer func() {
				over()
				took = <-slowest
				s.pulse = own.pulse
			}()
			run(&own)
		}()
		peak := own.memory("VmHWM")
		t.Logf("peak memory grew by %d KiB, slowest honest write took %s", peak-base, took.Round(time.Millisecond))
		if peak-base > growth {
			t.Errorf("memory grew by %d KiB, from %d", peak-base, base)
		}
		own.beat(ctx) // once more, after it
	})
}

// beat writes on a and reads on b, at least once and until the context ends, and returns the longest that took.
func (s *siege) beat(ctx context.Context) (slowest time.Duration) {
	for {
		s.pulse++
		key, value, began := fmt.Sprintf("pulse/%d", s.pulse%16), fmt.Sprint("beat ", s.pulse), time.Now()
		if err := s.owner.Put(s.ctx, s.a, key, []byte(value)); err != nil {
			s.Errorf("write under attack: %v", err)
			return slowest
		}
		limited, cancel := context.WithTimeoutCause(s.ctx, honestly, errors.New("too slow"))
		err := cluster.Poll(limited, 5*time.Millisecond, func() (bool, error) {
			got, err := s.owner.Get(limited, s.b, key)
			return string(got) == value, ignoreAbsence(err)
		})
		cancel()
		slowest = max(slowest, time.Since(began))
		if err != nil {
			s.Errorf("%s under attack, after %s: %v", key, slowest, err)
			return slowest
		}
		if ctx.Err() != nil {
			return slowest
		}
	}
}

// ignoreAbsence is for what has not arrived yet.
func ignoreAbsence(err error) error {
	if errors.Is(err, tinycloud.ErrNotFound) || errors.Is(err, tinycloud.ErrUnavailable) {
		return nil
	}
	return err
}

// memory reads a line of the process's status, in KiB.
func (s *siege) memory(line string) int {
	s.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.a.PID()))
	s.must(err)
	_, rest, _ := strings.Cut(string(status), line+":")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		s.Fatalf("no %s", line)
	}
	n, err := strconv.Atoi(fields[0])
	s.must(err)
	return n
}

// forgetPeak has the kernel measure the peak from now on.
func (s *siege) forgetPeak() {
	s.Helper()
	s.must(os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.a.PID()), []byte("5"), 0))
}

// attacker makes a client that is connected with the Space at a.
func (s *siege) attacker() (*attack.Client, peer.ID) {
	s.Helper()
	c, err := attack.New()
	s.must(err)
	s.Cleanup(func() { _ = c.Close() })
	id, err := c.Dial(s.ctx, s.addr)
	s.must(err)
	return c, id
}

// delegated returns the bytes of a delegation that makes a client a host, and its header.
func (s *siege) delegated(c *attack.Client) ([]byte, string) {
	s.Helper()
	header := s.owner.Wallet.SignHost(s.owner.Space, c.HostKey().String())
	return s.token(header), header
}

func (s *siege) token(header string) []byte {
	s.Helper()
	tok, err := capstore.ParseDelegation(header)
	s.must(err)
	return tok.Bytes
}

func (s *siege) invocation(key, ability string) []byte {
	s.Helper()
	tok, err := capstore.ParseInvocation(s.owner.Token("kv/"+key, "tinycloud.kv/"+ability))
	s.must(err)
	return tok.Bytes
}

// traitor is a client that is a host of the Space, with its delegation in the history.
type traitor struct {
	*attack.Client
	*attack.Log
	at     peer.ID
	gossip *attack.Gossip
	header string // of its delegation
	told   []hostlog.Bundle
	batch  []byte
}

func (s *siege) traitor() *traitor {
	s.Helper()
	c, id := s.attacker()
	chain, header := s.delegated(c)
	if _, err := c.Hello(s.ctx, id, attack.Prove(s.owner.Space, chain)); err != nil {
		s.Fatal(err)
	}
	x := &traitor{Client: c, Log: &attack.Log{Space: s.owner.Space, Key: c.Key}, at: id, header: header}
	var err error
	x.gossip, err = c.Gossip(s.ctx, id)
	s.must(err)
	s.tell(x, x.Say(time.Now(), s.heads(s.a), attack.Event{Token: chain}))
	return x
}

// parents are the heads and the traitor's own last epoch.
func (s *siege) parents(x *traitor) []tinycloud.Hash {
	s.Helper()
	heads := s.heads(s.a)
	if slices.Contains(heads, x.Last) {
		return heads
	}
	return append(heads, x.Last)
}

// tell sends a bundle by gossip and waits until a has its epoch.
func (s *siege) tell(x *traitor, bundles ...hostlog.Bundle) {
	s.Helper()
	before := s.view(s.a, s.owner)
	s.must(x.gossip.Say(attack.Batch(bundles...)))
	x.told = bundles
	s.await("the host is heard", func() bool {
		v := s.view(s.a, s.owner)
		for _, h := range v.Hosts {
			if h.PeerID == x.ID().String() && v.Epochs >= before.Epochs+int64(len(bundles)) {
				return true
			}
		}
		return false
	})
}

// await polls for what has to come about soon.
func (s *siege) await(what string, ok func() bool) {
	s.Helper()
	limited, cancel := context.WithTimeoutCause(s.ctx, 20*time.Second, errors.New("not in time"))
	defer cancel()
	if err := cluster.Poll(limited, 20*time.Millisecond, func() (bool, error) { return ok(), nil }); err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

// nothingLeaked checks what an attacker was sent.
func (s *siege) nothingLeaked(c *attack.Client) {
	s.Helper()
	if c.Told.Len() == 0 {
		s.Error("the transcript is empty")
	}
	if found := c.Told.Holds(s.secrets); len(found) > 0 {
		s.Errorf("the attacker was told %s", strings.Join(found, ", "))
	}
}

// converged waits until both honest hosts have one state and the keys say what they should.
func (s *siege) converged() {
	s.Helper()
	s.await("one state", func() bool {
		x, y := s.view(s.a, s.owner), s.view(s.b, s.owner)
		return x.StateHash == y.StateHash && x.Epochs == y.Epochs && fmt.Sprint(x.Heads) == fmt.Sprint(y.Heads)
	})
	s.reads("plans/secret", "the code is 0451 0451", s.a, s.b)
}

// TestSiege attacks a running node over its sockets.
func TestSiege(t *testing.T) {
	t.Parallel()
	s := newSiege(t)
	wait := s.silence()
	s.under("handshakes of those who may not", forgedHandshakes)
	s.under("enumeration", enumeration)
	s.under("floods of strangers", floods)
	s.under("slow strangers", sloth)
	s.under("values withheld and swapped", values)
	s.under("stock gossipsub and bitswap", stockPeers)
	s.under("history that lies", lies)
	s.under("replays", replays)
	s.under("branch of a removed host", removedBranch)
	s.under("garbage of a host", garbage)
	s.under("requests of a host", requests)
	gossip(s)
	s.under("wants of a host", hostWants)
	s.put(s.b, "withheld", "given after all")
	s.converged()
	wait()
}
