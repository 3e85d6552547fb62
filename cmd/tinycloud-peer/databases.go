package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type databasesCmd struct {
	Space    tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Database string            `arg:"" optional:"" help:"Name of one database; else all."`
	Failed   bool              `help:"List the writes that this host acknowledged and that failed once it met others, with their statements."`
	Limit    int               `default:"100" help:"How many of those, at most 1000."`
	After    string            `placeholder:"PLACE" help:"Those behind the place that a list ended with."`
	Hash     bool              `help:"Bring each up to date, and hash its content: equal on two hosts if and only if the content is."`
	Export   string            `placeholder:"FILE" help:"Write the database to a new file that SQLite opens."`
	listing
}

// Run lists the SQL databases of a Space, or what failed in them, or exports one.
func (c *databasesCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	switch {
	case c.Export != "" && c.Database == "":
		return errors.New("--export is of one database: name it")
	case c.Export != "":
		return exportDatabase(ctx, client, c.Space, c.Database, c.Export)
	case c.Failed:
		return c.failed(ctx, p, client)
	}
	list, err := client.Databases(ctx, c.Space, c.Hash)
	if err != nil {
		return err
	}
	if c.Database != "" {
		list = slices.DeleteFunc(list, func(v node.DatabaseView) bool { return v.Name != c.Database })
		if len(list) == 0 {
			return fmt.Errorf("no database %q: %w", c.Database, tinycloud.ErrNotFound)
		}
	}
	if c.JSON {
		return printJSON(p.out, list)
	}
	return c.print(p.out, list)
}

// failed lists a page of writes that failed, and says from where the next one goes on.
func (c *databasesCmd) failed(ctx context.Context, p *program, client *admin.Client) error {
	q := admin.FailedQuery{Database: c.Database, Limit: c.Limit}
	if c.After != "" {
		var err error
		if q.After, err = parsePlace(c.After); err != nil {
			return err
		}
	}
	list, err := client.FailedWrites(ctx, c.Space, q)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(p.out, list)
	} else {
		err = printFailed(p.out, list)
	}
	if err == nil && len(list) == c.Limit {
		fmt.Fprintf(p.err, "there may be more: --after %s\n", placeOf(list[len(list)-1]))
	}
	return err
}

// placeOf names a write in a list of those that failed.
func placeOf(v node.FailedView) string {
	return v.At.UTC().Format(time.RFC3339Nano) + "," + v.Epoch + "," + url.PathEscape(v.Database)
}

func parsePlace(text string) (*node.FailedView, error) {
	parts := strings.SplitN(text, ",", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("--after: %q is no place that a list ended with", text)
	}
	at, err1 := time.Parse(time.RFC3339Nano, parts[0])
	database, err2 := url.PathUnescape(parts[2])
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("--after: %w", err)
	}
	return &node.FailedView{At: at, Epoch: parts[1], Database: database}, nil
}

// exportDatabase writes a database to a file that was not there.
func exportDatabase(ctx context.Context, client *admin.Client, space tinycloud.SpaceID, database, path string) (err error) {
	body, err := client.Export(ctx, space, database)
	if err != nil {
		return err
	}
	defer body.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, body)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (l listing) print(out io.Writer, list []node.DatabaseView) error {
	w := table(out, "WRITES\tFAILED\tRUN\tPENDING\tSIZE\tHASH\tDATABASE")
	for _, v := range list {
		failed, hash := "?", "-"
		if v.Failed != nil {
			failed = fmt.Sprint(*v.Failed)
		}
		name := v.Name
		if !l.Wide {
			name = short(name, 20, 8)
		}
		if hash = cmp.Or(v.Hash, hash); !l.Wide && len(hash) > 12 {
			hash = hash[:12]
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%s\t%s\t%q\n", v.Writes, failed, v.Position, v.Pending, size(v.Bytes), hash, name)
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
