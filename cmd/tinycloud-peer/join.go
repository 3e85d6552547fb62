package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type joinCmd struct {
	Space   tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Addrs   []string          `arg:"" optional:"" name:"multiaddr" help:"Addresses of the Space at other hosts, as their \"id\" prints them, or of their nodes."`
	Wait    bool              `help:"Wait until the history of the others is here, and tell what is tried meanwhile."`
	Timeout time.Duration     `placeholder:"5m" help:"How long to wait; then it fails, and the node goes on joining."`
	Empty   bool              `help:"The others have no history: do not wait for it before serving."`
	Forget  []string          `placeholder:"MULTIADDR" help:"Forget an address that was given before."`
	answer
}

// Run has the node join; it goes on trying when this command has ended.
func (c *joinCmd) Run(ctx context.Context, p *program) error {
	client, datadir, err := p.node()
	if err != nil {
		return err
	}
	for _, addr := range c.Forget {
		if err := client.ForgetJoin(ctx, c.Space, addr); err != nil {
			return err
		}
		fmt.Fprintf(p.err, "forgot %s\n", addr)
	}
	if len(c.Forget) > 0 && len(c.Addrs) == 0 && !c.Empty {
		return nil
	}
	v, err := client.Join(ctx, c.Space, node.JoinRequest{Addrs: append([]string{}, c.Addrs...), Empty: c.Empty})
	var refused *admin.NotHostError
	if errors.As(err, &refused) && refused.SIWE != "" {
		return c.notHost(p, datadir, refused)
	}
	if err != nil {
		return err
	}
	if c.Wait || c.Timeout > 0 {
		if v, err = c.wait(ctx, p, client); err != nil {
			return err
		}
	}
	if c.JSON {
		return printJSON(p.out, v)
	}
	fmt.Fprintf(p.out, "%s %s: %d epochs, %d keys, %d values to fetch\n", v.State, v.Space, v.Epochs, v.Keys, v.Wants)
	return nil
}

// notHost says what the owner has to sign first.
func (c *joinCmd) notHost(p *program, datadir string, refused *admin.NotHostError) error {
	text, err := pending(hostFile(datadir, c.Space), hostText(c.Space, refused.DID, capstore.HostTerms{}))
	if err != nil {
		return err
	}
	fmt.Fprintf(p.err, "tinycloud-peer: %v\n\nThe owner signs this text with personal_sign:\n\n%s\n\n", refused, text)
	fmt.Fprintf(p.err, "Then: tinycloud-peer host %s --signature 0x…\n", c.Space)
	if refused.Remembered {
		fmt.Fprint(p.err, "The join is remembered for 30 days and takes effect with it.\n")
	} else {
		fmt.Fprint(p.err, "and join again: too many joins are remembered.\n")
	}
	return errReported
}

func isSynced(h node.HostView) bool { return h.Synced && !h.Self }

// wait asks until the Space is synced: a host that is connected has no more than is here. What changes meanwhile is told.
func (c *joinCmd) wait(ctx context.Context, p *program, client *admin.Client) (node.SpaceView, error) {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("not joined within %s", span(c.Timeout)))
		defer cancel()
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	told := map[string]string{}
	var v node.SpaceView
	for {
		now, err := client.Space(ctx, c.Space)
		if ctx.Err() == nil {
			v = now
			fetched := v.Wants == 0 || v.Policy == capstore.Lazy
			if err != nil || v.State == capstore.StateSynced && fetched && (c.Empty || slices.ContainsFunc(v.Hosts, isSynced)) {
				return v, err
			}
			tellJoins(p, v, told)
		}
		select {
		case <-ctx.Done():
			return v, c.gaveUp(ctx, v)
		case <-tick.C:
		}
	}
}

// tellJoins tells what has become of each address since it was told before.
func tellJoins(p *program, v node.SpaceView, told map[string]string) {
	for _, j := range v.Joins {
		line := j.State
		if j.LastError != "" {
			line += ": " + j.LastError
		}
		if told[j.Addr] != line {
			told[j.Addr] = line
			fmt.Fprintf(p.err, "%s  %s  %s\n", time.Now().Format(time.TimeOnly), shortAddr(j.Addr), line)
		}
	}
}

// gaveUp says why a Space is not joined yet.
func (c *joinCmd) gaveUp(ctx context.Context, v node.SpaceView) error {
	why := errors.New("interrupted")
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		why = cause
	}
	for _, j := range v.Joins {
		why = fmt.Errorf("%w\n  %s: %s", why, shortAddr(j.Addr), j.State)
		if j.LastError != "" {
			why = fmt.Errorf("%w: %s", why, j.LastError)
		}
	}
	return fmt.Errorf("%w\nthe node goes on joining; \"tinycloud-peer peers\" shows how", why)
}
