package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

type demoCmd struct {
	Once  bool `help:"End when all nodes agree; fail when they don't within a minute."`
	Peers int  `default:"3" help:"How many nodes, 2 to 9."`
}

const (
	demoWrites = 60
	demoLimit  = time.Minute
)

// Validate bounds the number of nodes.
func (c *demoCmd) Validate() error {
	if c.Peers < 2 || c.Peers > 9 {
		return errors.New("--peers: expected 2 to 9")
	}
	return nil
}

// Run starts the nodes, makes a Space replicated by all, and writes through one and reads through the others.
func (c *demoCmd) Run(ctx context.Context, p *program) (err error) {
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tinycloud-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{
		out: p.out, table: terminal(p.out) && !c.Once,
		nodes: cluster.New(cluster.Options{Binary: binary, Dir: dir}), owner: cluster.NewOwner("demo"),
	}
	defer func() { err = errors.Join(err, d.nodes.Close()) }()
	if err := d.setUp(ctx, c.Peers); err != nil {
		return stopped(ctx, err)
	}
	if c.Once {
		return stopped(ctx, d.once(ctx))
	}
	if err := d.once(ctx); err != nil {
		return stopped(ctx, err)
	}
	return d.goOn(ctx)
}

// stopped tells an interruption from a failure.
func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// demo is one run.
type demo struct {
	out    io.Writer
	table  bool // redraw instead of going on
	nodes  *cluster.Cluster
	owner  *cluster.Owner
	writes int
	lag    []time.Duration // of the newest write, by peer
}

// setUp starts the nodes, hosts the Space on all, joins them to the first and signs in there.
func (d *demo) setUp(ctx context.Context, peers int) error {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	for range peers {
		peer, err := d.nodes.Add(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.out, "%s  %s\n", peer.Name, peer.URL)
	}
	fmt.Fprintf(d.out, "owner  %s\nspace  %s\n", d.owner.Wallet.DID(), d.owner.Space)
	for i, peer := range d.nodes.Peers() {
		if err := d.owner.Host(ctx, peer); err != nil {
			return err
		}
		if i == 0 {
			if _, err := d.owner.SignIn(ctx, peer); err != nil {
				return err
			}
			continue
		}
		if err := d.owner.Join(ctx, peer, d.nodes.Peers()[0]); err != nil {
			return err
		}
	}
	_, err := d.owner.AwaitSame(ctx, d.nodes.Peers())
	return err
}

// once writes through each node in turn, reads every write back at all others and compares the states.
func (d *demo) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoLimit, errors.New("the nodes did not agree in time"))
	defer cancel()
	began := time.Now()
	for range demoWrites {
		if err := d.write(ctx); err != nil {
			return err
		}
	}
	views, err := d.owner.AwaitSame(ctx, d.nodes.Peers())
	if err != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return errors.Join(err, d.draw(late, d.out))
	}
	for n := range d.writes {
		for _, peer := range d.nodes.Peers() {
			if got, err := d.owner.Get(ctx, peer, demoKey(n)); err != nil || string(got) != demoValue(n) {
				return fmt.Errorf("%s: %s is %q, %w", peer.Name, demoKey(n), got, err)
			}
		}
	}
	if err := d.draw(ctx, d.out); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%d writes, each read at %d nodes, in %s; state %s\n",
		d.writes, len(views), time.Since(began).Round(time.Millisecond), views[0].StateHash)
	return nil
}

func demoKey(n int) string   { return fmt.Sprintf("notes/%04d", n) }
func demoValue(n int) string { return fmt.Sprintf("note %d, as every node has it", n) }

// write writes a note through one node and waits until all others answer with it.
func (d *demo) write(ctx context.Context) error {
	n, peers := d.writes, d.nodes.Peers()
	if err := d.owner.Put(ctx, peers[n%len(peers)], demoKey(n), []byte(demoValue(n))); err != nil {
		return err
	}
	d.writes++
	began := time.Now()
	d.lag = make([]time.Duration, len(peers))
	return cluster.Each(peers, func(i int, peer *cluster.Peer) error {
		err := cluster.Poll(ctx, time.Millisecond, func() (bool, error) {
			got, err := d.owner.Get(ctx, peer, demoKey(n))
			return err == nil && string(got) == demoValue(n), nil
		})
		d.lag[i] = time.Since(began)
		return err
	})
}

// goOn writes until it is interrupted.
func (d *demo) goOn(ctx context.Context) error {
	fmt.Fprintln(d.out, "The nodes go on, with a write every second. Ctrl-C ends them.")
	step := func(w io.Writer) error {
		limited, cancel := context.WithTimeout(ctx, demoLimit)
		defer cancel()
		if err := d.write(limited); err != nil {
			return err
		}
		return d.draw(limited, w)
	}
	if d.table {
		return live(ctx, d.out, step)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := step(io.Discard); err != nil {
			return stopped(ctx, err)
		}
	}
}

// draw prints who has what.
func (d *demo) draw(ctx context.Context, out io.Writer) error {
	_, views, err := d.owner.Same(ctx, d.nodes.Peers())
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tURL\tSTATE\tHOSTS\tEPOCHS\tKEYS\tHASH/RULES\tLAST WRITE READ AFTER")
	for i, peer := range d.nodes.Peers() {
		lag := "-"
		if i < len(d.lag) {
			lag = fmt.Sprintf("%.1f ms", float64(d.lag[i].Microseconds())/1000)
		}
		v := views[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%.8s/%d\t%s\n", peer.Name, peer.URL, v.State, len(v.Hosts), v.Epochs, v.Keys, v.StateHash, v.Rules, lag)
	}
	return w.Flush()
}
