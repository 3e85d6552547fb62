package main

import (
	"context"
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

type healthCmd struct {
	Space *tinycloud.SpaceID `arg:"" optional:"" help:"Space id: whether this node serves it now, too."`
	answer
}

// Help tells for whom the verb is.
func (*healthCmd) Help() string {
	return "For health checks of containers and services: it exits 0 when the node can serve, and 1 when it can't, or isn't there."
}

// Run asks what /healthz tells.
func (c *healthCmd) Run(ctx context.Context, p *program) error {
	node, _, err := p.node()
	if err != nil {
		return err
	}
	healthy, err := node.Healthy(ctx, c.Space)
	switch {
	case err != nil:
		return err
	case c.JSON:
		err = printJSON(p.out, map[string]bool{"healthy": healthy})
	case healthy:
		_, err = fmt.Fprintln(p.out, "healthy")
	}
	switch {
	case err != nil || healthy:
		return err
	case c.JSON:
		return errReported
	case c.Space != nil:
		return errors.New("the Space is not served here now: \"peers\" tells why")
	}
	return errors.New("not healthy: the log tells why")
}
