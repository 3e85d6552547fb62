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
	Space tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Addrs []string          `arg:"" optional:"" name:"multiaddr" help:"Addresses of the Space at other hosts, as their \"id\" prints them, or of their nodes."`
	Wait  bool              `help:"Wait until the history of the others is here."`
	Empty bool              `help:"The others have no history: do not wait for it before serving."`
}

// Run has the node join; it goes on trying when this command has ended.
func (c *joinCmd) Run(ctx context.Context, p *program) error {
	client, datadir, err := p.node()
	if err != nil {
		return err
	}
	v, err := client.Join(ctx, c.Space, node.JoinRequest{Addrs: append([]string{}, c.Addrs...), Empty: c.Empty})
	var refused *admin.NotHostError
	if errors.As(err, &refused) && refused.SIWE != "" {
		text, err := pending(hostFile(datadir, c.Space), hostText(c.Space, refused.DID))
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
	if err != nil {
		return err
	}
	if c.Wait {
		if v, err = c.wait(ctx, client); err != nil {
			return err
		}
	}
	fmt.Fprintf(p.out, "%s %s: %d epochs, %d keys, %d values to fetch\n", v.State, v.Space, v.Epochs, v.Keys, v.Wants)
	return nil
}

func isSynced(h node.HostView) bool { return h.Synced && !h.Self }

// wait asks until the Space is synced: a host that is connected has no more than is here.
func (c *joinCmd) wait(ctx context.Context, client *admin.Client) (node.SpaceView, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := client.Space(ctx, c.Space)
		fetched := v.Wants == 0 || v.Policy == capstore.Lazy
		if err != nil || v.State == capstore.StateSynced && fetched && (c.Empty || slices.ContainsFunc(v.Hosts, isSynced)) {
			return v, err
		}
		select {
		case <-ctx.Done():
			return v, errors.New("interrupted; the node goes on joining")
		case <-tick.C:
		}
	}
}
