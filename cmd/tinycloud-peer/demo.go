package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/client"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

type demoCmd struct {
	Once  bool `help:"End with the story; fail when a part of it does not come true within a minute."`
	Peers int  `default:"3" help:"How many nodes, 2 to 9."`
}

// demoLimit is how long a chapter may take.
const demoLimit = time.Minute

// Validate bounds the number of nodes.
func (c *demoCmd) Validate() error {
	if c.Peers < 2 || c.Peers > 9 {
		return errors.New("--peers: expected 2 to 9")
	}
	return nil
}

// Help says what is told.
func (*demoCmd) Help() string {
	return "It tells a story on nodes of this machine, and measures as it goes: hosts start, one is killed and comes back, two write while they are parted, " +
		"one lies, databases and secrets travel, and an app is sent away. What it says is checked."
}

// Run starts the nodes and tells the story on them. Then they go on until a signal.
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
	owner := cluster.NewOwner("demo")
	d := &demo{
		narrator: narrator{out: p.out, live: terminal(p.out)}, binary: binary,
		nodes: cluster.New(cluster.Options{Binary: binary, Dir: dir, Ways: true}),
		owner: owner, vault: cluster.NewOwnerOf(owner.Wallet, "secrets"),
	}
	defer func() { err = errors.Join(err, d.nodes.Close()) }()
	if err := d.tell(ctx, c.Peers); err != nil {
		return stopped(ctx, err)
	}
	if c.Once {
		return nil
	}
	return stopped(ctx, d.goOn(ctx))
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
	narrator
	binary string
	nodes  *cluster.Cluster
	owner  *cluster.Owner // of the Space of the story, with the session of an app
	vault  *cluster.Owner // the same, of the Space of secrets
}

// tell tells the story, chapter by chapter.
func (d *demo) tell(ctx context.Context, peers int) error {
	fmt.Fprintf(d.out, "A Space that lives on %d hosts. All of them run on this machine.\n", peers)
	for _, chapter := range []struct {
		title string
		run   func(context.Context) error
	}{
		{fmt.Sprintf("%d hosts start, and the owner's wallet signs for each", peers), func(ctx context.Context) error { return d.start(ctx, peers) }},
		{"An app writes through every host, and reads at all of them", d.write},
		{"One host is killed", d.kill},
		{"The network parts, and two hosts write one key", d.part},
		{"A stranger and a liar", d.lie},
		{"A database and a secret", d.more},
		{"The owner sends the app away", d.revoke},
	} {
		d.chapter(chapter.title)
		limited, cancel := context.WithTimeoutCause(ctx, demoLimit, errors.New("it did not come true in time"))
		err := chapter.run(limited)
		cancel()
		if err != nil {
			d.clear()
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	return d.end(ctx)
}

// end compares all hosts once more, and says what to look at.
func (d *demo) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	views, err := d.owner.AwaitSame(ctx, d.nodes.Peers())
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\nAll %d hosts are equal: %d keys, state %.16s.\n", len(views), views[0].Keys, views[0].StateHash)
	return nil
}

// goOn signs in for whoever looks on, says how to, and waits for the end.
func (d *demo) goOn(ctx context.Context) error {
	first := d.nodes.Peers()[0]
	session := client.NewSession()
	header := d.owner.Grant(session.URI())
	var err error
	if session.Delegation, err = client.DelegationOf(header); err != nil {
		return err
	}
	if _, err := first.Admin.Delegate(ctx, header); err != nil {
		return err
	}
	if err := saveSession(sessionFile(first.Datadir(), d.owner.Space), session); err != nil {
		return err
	}
	run := d.binary
	if filepath.Base(os.Args[0]) == os.Args[0] { // it is found by its name
		run = os.Args[0]
	}
	run += " --datadir " + first.Datadir()
	fmt.Fprintf(d.out, "\nThey go on. Look around, in another terminal:\n\n  %s\n\n", strings.Join([]string{
		run + " status", run + " peers " + d.owner.Space.String(), run + " kv ls " + d.owner.Space.String(),
	}, "\n  "))
	for _, p := range d.nodes.Peers() {
		fmt.Fprintf(d.out, "  %s  %s\n", p.Name, p.URL)
	}
	if page, err := first.Admin.Page(ctx); err == nil { // its port may be taken
		fmt.Fprintf(d.out, "  page   %s\n", page.URL)
	}
	fmt.Fprintln(d.out, "\nCtrl-C ends them and deletes everything.")
	<-ctx.Done()
	return nil
}
