package main

import (
	"context"
	"fmt"
	"time"
)

type pageCmd struct{ answer }

// Help tells how far the link goes.
func (*pageCmd) Help() string {
	return "The link works once and for some minutes, in a browser on the node's machine; there it is logged in for 12 hours, or until the node stops. " +
		"From another machine: ssh -L 8002:127.0.0.1:8002 MACHINE, and then the link here."
}

// Run prints the link.
func (c *pageCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	v, err := client.Page(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, v)
	}
	fmt.Fprintf(p.err, "For one browser, until %s:\n", v.Expires.Local().Format(time.TimeOnly))
	_, err = fmt.Fprintln(p.out, v.URL)
	return err
}
