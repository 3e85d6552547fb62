package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type databasesCmd struct {
	Space  tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Failed bool              `help:"List the writes that this host acknowledged and that failed once it met others, with their statements."`
	Hash   bool              `help:"Bring each up to date, and hash its content: equal on two hosts if and only if the content is."`
	JSON   bool              `name:"json" help:"Print JSON."`
}

// Run lists the SQL databases of a Space, or what failed in them.
func (c *databasesCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	if c.Failed {
		list, err := client.FailedWrites(ctx, c.Space)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.out, list)
		}
		return printFailed(p.out, list)
	}
	list, err := client.Databases(ctx, c.Space, c.Hash)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, list)
	}
	return printDatabases(p.out, list)
}

func printDatabases(out io.Writer, list []node.DatabaseView) error {
	w := table(out, "WRITES\tFAILED\tRUN\tPENDING\tBYTES\tHASH\tDATABASE")
	for _, v := range list {
		failed, hash := "?", "-"
		if v.Failed != nil {
			failed = fmt.Sprint(*v.Failed)
		}
		if v.Hash != "" {
			hash = v.Hash
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%d\t%s\t%q\n", v.Writes, failed, v.Position, v.Pending, v.Bytes, hash, v.Name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, v := range list {
		if len(v.Differs) > 0 {
			fmt.Fprintf(out, "warning: %s made other content of %q of the same writes; it was made anew here, and is compared again within an hour\n", strings.Join(v.Differs, ", "), v.Name)
		}
		for _, d := range v.Doubled {
			fmt.Fprintf(out, "warning: the token of %s stands in %q with different requests:\n", d.Event, v.Name)
			for _, p := range d.Places {
				counts := "does not count"
				if p.Counts {
					counts = "counts"
				}
				fmt.Fprintf(out, "  %s %s, say %s\n", p.Epoch, counts, strings.Join(p.Hosts, ", "))
			}
		}
	}
	return nil
}

func printFailed(out io.Writer, list []node.FailedView) error {
	for _, v := range list {
		fmt.Fprintf(out, "%s  %q  %s\n  %s\n", v.At.Local().Format("2006-01-02 15:04:05"), v.Database, v.Epoch, v.Error)
		for _, sql := range v.Schema {
			fmt.Fprintf(out, "  %q\n", sql)
		}
		for _, s := range v.Statements {
			params, err := json.Marshal(s.Params)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "  %q %s\n", s.SQL, params)
		}
		if v.Cut {
			fmt.Fprintln(out, "  … the request is longer")
		}
	}
	return nil
}
