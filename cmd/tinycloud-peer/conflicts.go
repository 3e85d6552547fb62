package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

type conflictsCmd struct {
	Space  tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Export string            `placeholder:"DIR" help:"Write the values to files of a directory, which is made, with a list of them in conflicts.json."`
	JSON   bool              `name:"json" help:"Print JSON."`
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
	if c.Export != "" {
		return c.export(ctx, p, client, list)
	}
	if c.JSON {
		return printJSON(p.out, list)
	}
	w := table(p.out, "KEY\tWRITTEN\tLOST\tBYTES\tBY\tVALUE")
	for _, v := range list {
		written := "-"
		if v.At != nil {
			written = v.At.Local().Format(time.DateTime)
		}
		size := "not here"
		if v.Size >= 0 {
			size = fmt.Sprint(v.Size)
		}
		fmt.Fprintf(w, "%q\t%s\t%s\t%s\t%s\t%s\n", v.Key, written, v.Since.Local().Format(time.DateTime), size, v.Actor, v.Value)
	}
	return w.Flush()
}

// exported is a line of conflicts.json.
type exported struct {
	File string `json:"file"` // "" when the value could not be had
	node.ConflictView
}

func (c *conflictsCmd) export(ctx context.Context, p *program, client *admin.Client, list []node.ConflictView) error {
	if err := os.MkdirAll(c.Export, 0o700); err != nil {
		return err
	}
	out, failed := []exported{}, 0
	for _, v := range list {
		name := conflictFile(v.Key, v.Event)
		if err := c.save(ctx, client, v, filepath.Join(c.Export, name)); err != nil {
			if errors.Is(err, os.ErrExist) {
				return err
			}
			fmt.Fprintf(p.err, "tinycloud-peer: %q: %v\n", v.Key, err)
			name, failed = "", failed+1
		}
		out = append(out, exported{name, v})
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	if err := writeNew(filepath.Join(c.Export, "conflicts.json"), string(b)+"\n"); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "%d of %d values written to %s\n", len(list)-failed, len(list), c.Export)
	if failed > 0 {
		return errReported
	}
	return nil
}

func (c *conflictsCmd) save(ctx context.Context, client *admin.Client, v node.ConflictView, path string) error {
	body, err := client.ConflictValue(ctx, c.Space, v.Value)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return copyNew(path, body)
}

// copyNew writes a file that is not there yet.
func copyNew(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

const keptOfKey = 120 // bytes of a file's name that are the escaped key

// conflictFile is the name of the file for a value: the key with all but letters, digits, - and _ escaped, and the
// event, so that two conflicts never share a file and no key leads out of the directory.
func conflictFile(key, event string) string {
	var b strings.Builder
	for i := range len(key) {
		switch k := key[i]; {
		case k >= 'a' && k <= 'z', k >= 'A' && k <= 'Z', k >= '0' && k <= '9', k == '-', k == '_':
			b.WriteByte(k)
		default:
			fmt.Fprintf(&b, "%%%02X", k)
		}
	}
	name := b.String()
	return name[:min(len(name), keptOfKey)] + "." + event
}
