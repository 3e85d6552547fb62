package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/client"
)

type loginCmd struct {
	Space   tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Expires time.Duration     `default:"24h" help:"How long the session lasts."`
	ownerSigned
	answer
}

// Run has the owner delegate to a session key, which stays in the data directory.
func (c *loginCmd) Run(ctx context.Context, p *program) error {
	node, datadir, err := p.node()
	if err != nil {
		return err
	}
	s := &client.Space{ID: c.Space}
	s.Host, s.HTTP = node.API()
	file := pendingFile(datadir, "login", c.Space.String())
	if s.Session, err = loadSession(file + ".session"); errors.Is(err, fs.ErrNotExist) {
		s.Session, err = client.NewSession(), nil
	}
	if err != nil {
		return err
	}
	grant := client.Grant{
		Owner: c.Space.Owner(), Audience: s.Session.URI(), Expires: time.Now().Add(c.Expires),
		Abilities: map[string][]string{
			c.Space.String() + "/kv":  {"tinycloud.kv/get", "tinycloud.kv/put", "tinycloud.kv/del", "tinycloud.kv/list", "tinycloud.kv/metadata"},
			c.Space.String() + "/sql": {"tinycloud.sql/read", "tinycloud.sql/write"},
		},
	}
	finish := func(header string) (err error) {
		if s.Session.Delegation, err = client.DelegationOf(header); err != nil {
			return err
		}
		if err := s.Post(ctx, s.Session.Delegation); err != nil {
			return err
		}
		if err := saveSession(sessionFile(datadir, c.Space), s.Session); err != nil {
			return err
		}
		_ = os.Remove(file + ".session")
		if c.JSON {
			return printJSON(p.out, map[string]any{"space": c.Space.String(), "session": s.Session.DID(), "expires": grant.Expires.UTC().Truncate(time.Second)})
		}
		fmt.Fprintf(p.out, "signed in to %s until %s\n", c.Space, grant.Expires.Format(time.RFC3339))
		return nil
	}
	switch {
	case c.Key != "":
		w, err := walletIn(c.Key)
		if err != nil {
			return err
		}
		if w.DID() != c.Space.Owner() {
			return fmt.Errorf("%s is the key of %s, and the owner of the Space is %s", c.Key, w.DID(), c.Space.Owner())
		}
		d, err := w.Delegate(grant)
		if err != nil {
			return err
		}
		return finish(d.Header)
	case c.Signature == "":
		if err := saveSession(file+".session", s.Session); err != nil {
			return err
		}
		return c.ask(p, file, func(old string) (string, error) {
			if strings.Contains(old, "\nURI: "+s.Session.URI()+"\n") {
				return old, nil
			}
			return grant.Text()
		})
	}
	return c.complete(file, finish)
}

func sessionFile(datadir string, space tinycloud.SpaceID) string {
	return filepath.Join(datadir, "sessions", tinycloud.Sum([]byte(space.String())).String()[:32]+".json")
}

func loadSession(file string) (*client.Session, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s := &client.Session{}
	return s, json.Unmarshal(b, s)
}

// saveSession writes a session for the user of this process alone.
func saveSession(file string, s *client.Session) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// app is a Space for its session.
func (p *program) app(space tinycloud.SpaceID) (*client.Space, error) {
	node, datadir, err := p.node()
	if err != nil {
		return nil, err
	}
	s := &client.Space{ID: space}
	s.Host, s.HTTP = node.API()
	s.Session, err = loadSession(sessionFile(datadir, space))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: tinycloud-peer login %s", errNotSignedIn, space)
	}
	return s, err
}

var errNotSignedIn = errors.New("not signed in")

type kvCmd struct {
	Get kvGetCmd `cmd:"" help:"Print a value."`
	Put kvPutCmd `cmd:"" help:"Write a value."`
	Ls  kvLsCmd  `cmd:"" name:"ls" help:"List keys."`
	Rm  kvRmCmd  `cmd:"" name:"rm" help:"Remove a key."`
}

type keyArgs struct {
	Space tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Key   string            `arg:"" help:"Key, as it stands in a URI."`
}

type kvGetCmd struct {
	keyArgs
	answer
}

// Run prints a value as it is.
func (c *kvGetCmd) Run(ctx context.Context, p *program) error {
	s, err := p.app(c.Space)
	if err != nil {
		return err
	}
	value, err := s.Get(ctx, c.Key)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, map[string]any{"key": c.Key, "bytes": len(value), "base64": value})
	}
	_, err = p.out.Write(value)
	return err
}

type kvPutCmd struct {
	keyArgs
	File string `arg:"" optional:"" default:"-" help:"File with the value; - is standard input."`
	answer
}

// Run writes a value. It is durable at the node when this returns.
func (c *kvPutCmd) Run(ctx context.Context, p *program) error {
	s, err := p.app(c.Space)
	if err != nil {
		return err
	}
	var value []byte
	if c.File == "-" {
		value, err = io.ReadAll(os.Stdin)
	} else {
		value, err = os.ReadFile(c.File)
	}
	if err != nil {
		return err
	}
	if err := s.Put(ctx, c.Key, value); err != nil || !c.JSON {
		return err
	}
	return printJSON(p.out, map[string]any{"key": c.Key, "bytes": len(value)})
}

type kvLsCmd struct {
	Space  tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Prefix string            `arg:"" optional:"" help:"What the keys begin with."`
	answer
}

// Run lists keys, one a line.
func (c *kvLsCmd) Run(ctx context.Context, p *program) error {
	s, err := p.app(c.Space)
	if err != nil {
		return err
	}
	keys := []string{}
	for key, err := range s.List(ctx, c.Prefix) {
		if err != nil {
			return err
		}
		if keys = append(keys, key); !c.JSON {
			fmt.Fprintln(p.out, key)
		}
	}
	if c.JSON {
		return printJSON(p.out, keys)
	}
	return nil
}

type kvRmCmd struct {
	keyArgs
	answer
}

// Run removes a key.
func (c *kvRmCmd) Run(ctx context.Context, p *program) error {
	s, err := p.app(c.Space)
	if err != nil {
		return err
	}
	if err := s.Delete(ctx, c.Key); err != nil || !c.JSON {
		return err
	}
	return printJSON(p.out, map[string]string{"key": c.Key})
}

type sqlCmd struct {
	Space     tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	Database  string            `arg:"" help:"Name of the database; it begins with the first write."`
	Statement string            `arg:"" help:"One statement, with ? for parameters."`
	Params    []string          `arg:"" optional:"" help:"Parameters, as text."`
	Operator  bool              `help:"Read as the operator of the node, without a session. Where nobody is signed in it is so by itself."`
	answer
}

// Run carries out a statement: one that begins with SELECT or WITH reads, any other writes. Who is not signed in to the Space
// is the operator, if he may open the node's socket, and reads.
func (c *sqlCmd) Run(ctx context.Context, p *program) error {
	params := make([]any, len(c.Params))
	for i, x := range c.Params {
		params[i] = x
	}
	if c.Operator {
		return c.look(ctx, p, params)
	}
	s, err := p.app(c.Space)
	if errors.Is(err, errNotSignedIn) && p.url == "" {
		return c.look(ctx, p, params)
	}
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(c.Statement))+" ", " ")
	if first != "select" && first != "with" {
		n, err := s.Execute(ctx, c.Database, c.Statement, params...)
		if err == nil && c.JSON {
			err = printJSON(p.out, map[string]int64{"changes": n})
		} else if err == nil {
			fmt.Fprintf(p.out, "%d rows changed\n", n)
		}
		return err
	}
	rows, err := s.Query(ctx, c.Database, c.Statement, params...)
	if err != nil {
		return err
	}
	return c.print(p, rows)
}

// look reads without a session.
func (c *sqlCmd) look(ctx context.Context, p *program, params []any) error {
	if p.url != "" {
		return errors.New("--operator is for who may open the node's socket: it is not with --url")
	}
	node, _, err := p.node()
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"action": "query", "sql": c.Statement, "params": params})
	if err != nil {
		return err
	}
	answer, err := node.Query(ctx, c.Space, c.Database, body)
	if err != nil {
		return err
	}
	var rows client.Rows
	if err := json.Unmarshal(answer, &rows); err != nil {
		return err
	}
	return c.print(p, rows)
}

func (c *sqlCmd) print(p *program, rows client.Rows) error {
	if c.JSON {
		return printJSON(p.out, rows)
	}
	w := table(p.out, strings.Join(rows.Columns, "\t"))
	for _, row := range rows.Rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = cellText(cell)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// cellText is a JSON value for people: a text without its quotes, on one line.
func cellText(cell json.RawMessage) string {
	var text string
	if json.Unmarshal(cell, &text) != nil || string(cell) == "null" {
		return string(cell)
	}
	return strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(text)
}

type delegateCmd struct {
	Space     tinycloud.SpaceID `arg:"" help:"Space id, tinycloud:…:name."`
	DID       string            `arg:"" name:"did" help:"Who gets the abilities."`
	Abilities []string          `required:"" name:"ability" placeholder:"tinycloud.kv/get" help:"Abilities, of those that the session has."`
	Path      string            `help:"Below which they hold; else everywhere."`
	Expires   time.Duration     `default:"1h" help:"How long, at most as long as the session."`
	answer
}

// Run prints the delegation, and its id, by which who has it acts.
func (c *delegateCmd) Run(ctx context.Context, p *program) error {
	s, err := p.app(c.Space)
	if err != nil {
		return err
	}
	to, err := tinycloud.ParsePrincipal(c.DID)
	if err != nil {
		return err
	}
	caps := map[string][]string{}
	for _, a := range c.Abilities {
		service, _, ok := strings.Cut(strings.TrimPrefix(a, "tinycloud."), "/")
		if !ok || !tinycloud.IsAbility(a) {
			return fmt.Errorf("%q is no ability such as tinycloud.kv/get", a)
		}
		resource := c.Space.String() + "/" + service
		if c.Path != "" {
			resource += "/" + c.Path
		}
		caps[resource] = append(caps[resource], a)
	}
	d := s.Session.Delegate(to, caps, time.Now().Add(c.Expires))
	if err := s.Post(ctx, d); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, map[string]string{"cid": d.ID.EventID(), "header": d.Header})
	}
	fmt.Fprintf(p.err, "%s may do that until %s, by:\n", to, time.Now().Add(c.Expires).Format(time.RFC3339))
	fmt.Fprintln(p.out, d.ID.EventID())
	return nil
}
