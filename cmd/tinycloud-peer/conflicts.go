package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type conflictsCmd struct {
	Space  tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Export string            `placeholder:"DIR" help:"Write the values to files of a directory, which is made, with a list of them in conflicts.json."`
	listing
}

// Run lists what was written and lost against a write that did not know of it.
func (c *conflictsCmd) Run(ctx context.Context, p *program) error {
	client, _, err := p.node()
	if err != nil {
		return err
	}
	list, err := client.Conflicts(ctx, c.Space)
	if err != nil {
		return err
	}
	switch {
	case c.Export != "":
		return c.export(ctx, p, client, list)
	case c.JSON:
		return printJSON(p.out, list)
	}
	return c.print(p.out, list)
}

func (c *conflictsCmd) print(out io.Writer, list []node.ConflictView) error {
	if c.Wide {
		return printConflicts(out, list)
	}
	w := table(out, "KEY\tWRITTEN\tLOST\tSIZE\tBY")
	for _, v := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", fmt.Sprintf("%q", short(v.Key, 12, 8)), sinceOr(v.At), sinceOr(v.Since), sizeHere(v.Size), short(v.Actor, 12, 6))
	}
	return w.Flush()
}

func sinceOr(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return since(t)
}

func sizeHere(n int64) string {
	if n < 0 {
		return "not here"
	}
	return size(n)
}

func printConflicts(out io.Writer, list []node.ConflictView) error {
	w := table(out, "KEY\tWRITTEN\tLOST\tEARLY\tSIZE\tBY\tVALUE")
	for _, v := range list {
		early := "-"
		if v.Early {
			early = "early"
		}
		fmt.Fprintf(w, "%q\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Key, local(v.At), local(v.Since), early, sizeHere(v.Size), v.Actor, v.Value)
	}
	return w.Flush()
}

func local(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// exported is a line of the list of what was exported.
type exported struct {
	File  string `json:"file"`            // "" when there is none
	Error string `json:"error,omitempty"` // why
	node.ConflictView
}

const (
	exportList = "conflicts"
	maxExports = 1000 // lists in a directory
)

// export writes each value to a file of its own. It goes on after a value that can't be had; nothing is overwritten.
func (c *conflictsCmd) export(ctx context.Context, p *program, client *admin.Client, list []node.ConflictView) error {
	if err := os.MkdirAll(c.Export, 0o700); err != nil {
		return err
	}
	dir, err := os.OpenRoot(c.Export)
	if err != nil {
		return err
	}
	defer dir.Close()
	out, failed := []exported{}, 0
	for _, v := range list {
		line := exported{File: conflictFile(v.Key, v.Event), ConflictView: v}
		if err := c.save(ctx, client, v, dir, line.File); err != nil {
			if ctx.Err() != nil {
				return err
			}
			fmt.Fprintf(p.err, "tinycloud-peer: %q: %v\n", v.Key, err)
			line.File, line.Error, failed = "", err.Error(), failed+1
		}
		out = append(out, line)
	}
	name, err := writeList(dir, out)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "%d of %d values are in %s, listed in %s\n", len(list)-failed, len(list), c.Export, name)
	if failed > 0 {
		return errReported
	}
	return nil
}

// save writes a value to a file. One that is there already came from the same event.
func (c *conflictsCmd) save(ctx context.Context, client *admin.Client, v node.ConflictView, dir *os.Root, name string) error {
	if _, err := dir.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	body, err := client.ConflictValue(ctx, c.Space, v.Value)
	if err != nil {
		return err
	}
	defer body.Close()
	part := name + ".part" // left over when a process is killed
	if err := dir.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := copyNew(dir, part, body); err != nil {
		return err
	}
	return dir.Rename(part, name)
}

// copyNew writes a file that is not there yet.
func copyNew(dir *os.Root, name string, from io.Reader) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, dir.Remove(name))
	}
	return nil
}

// writeList writes the list beside those of exports before.
func writeList(dir *os.Root, list []exported) (name string, err error) {
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return "", err
	}
	for n := 1; n <= maxExports; n++ {
		if name = exportList + ".json"; n > 1 {
			name = fmt.Sprintf("%s-%d.json", exportList, n)
		}
		if err = copyNew(dir, name, strings.NewReader(string(b)+"\n")); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return name, err
}

const keptOfKey = 100 // bytes of a file's name that are the escaped key

// conflictFile is the name of the file for a value: the key, with all escaped but letters, digits, "-", "_" and a "." that
// is not the first, and the CID of the event. Two conflicts never share a file, no key leads out of the directory, and
// no name is longer than file systems take. What is cut off a long key is told by its hash, after a "~".
func conflictFile(key, event string) string {
	var b strings.Builder
	for i := range len(key) {
		switch k := key[i]; {
		case k >= 'a' && k <= 'z', k >= 'A' && k <= 'Z', k >= '0' && k <= '9', k == '-', k == '_', k == '.' && i > 0:
			b.WriteByte(k)
		default:
			fmt.Fprintf(&b, "%%%02X", k)
		}
	}
	name := b.String()
	switch {
	case name == "":
		name = "%" // of no other key
	case len(name) > keptOfKey:
		sum := tinycloud.Sum([]byte(key))
		name = name[:keptOfKey] + "~" + hex.EncodeToString(sum[:16])
	}
	return name + "." + event
}
