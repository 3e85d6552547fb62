// Command tinycloud-peer is a TinyCloud host: it serves the HTTP API of the Spaces delegated to it and keeps
// each Space equal with its other hosts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/private"
)

// Exit codes.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

// cli is the command line; each verb has a file of its own.
type cli struct {
	Config  string `help:"Configuration file; else $$TINYCLOUD_CONFIG_FILE, else tinycloud.toml here or above." placeholder:"FILE"`
	Datadir string `help:"Directory of the node's data, whatever the configuration says." placeholder:"DIR"`
	URL     string `name:"url" help:"URL of the HTTP API of a node elsewhere, for verbs about a running node." placeholder:"URL"`
	Token   string `help:"Its admin.secret." env:"TINYCLOUD_ADMIN_SECRET" placeholder:"SECRET"`

	ShowVersion kong.VersionFlag `name:"version" help:"Print the version and exit."`

	Serve     serveCmd     `cmd:"" default:"withargs" help:"Run the node. This is the default."`
	Init      initCmd      `cmd:"" help:"Write a configuration and a secret for a new node."`
	Demo      demoCmd      `cmd:"" help:"Run some nodes on this machine that replicate a Space."`
	ID        idCmd        `cmd:"" name:"id" help:"Print who this node is in a Space, and its addresses."`
	Host      hostCmd      `cmd:"" help:"Print what a Space's owner has to sign for this node to host it, or complete it."`
	Unhost    unhostCmd    `cmd:"" help:"Print what a Space's owner has to sign to remove a host, or complete it."`
	Leave     leaveCmd     `cmd:"" help:"Be a host of a Space no more, or delete what is here of it."`
	Join      joinCmd      `cmd:"" help:"Replicate a Space with other hosts."`
	Pair      pairCmd      `cmd:"" help:"Have this node and another ask each other, or this one the other, about every Space."`
	Invite    inviteCmd    `cmd:"" help:"Print an invite by which another node pairs itself with this one."`
	Unpair    unpairCmd    `cmd:"" help:"Ask a paired node no more."`
	Nodes     nodesCmd     `cmd:"" help:"List the nodes that are asked about every Space."`
	Alias     aliasCmd     `cmd:"" help:"Name nodes and hosts, for all that is shown here."`
	Spaces    spacesCmd    `cmd:"" help:"List the Spaces this node hosts."`
	Peers     peersCmd     `cmd:"" help:"List the hosts of a Space."`
	Status    statusCmd    `cmd:"" help:"Show what the node is doing."`
	Health    healthCmd    `cmd:"" help:"Tell whether the node can serve, by the exit code."`
	Page      pageCmd      `cmd:"" help:"Print a link to the node's web page, for one browser."`
	Networks  networksCmd  `cmd:"" help:"List the encryption networks that are known here."`
	Network   networkCmd   `cmd:"" help:"Show an encryption network, share its keys, or rotate them."`
	Conflicts conflictsCmd `cmd:"" help:"List, or write to files, what lost against a write that did not know of it."`
	Databases databasesCmd `cmd:"" help:"List the SQL databases of a Space, or the writes of this host that failed once it met others."`
	Policy    policyCmd    `cmd:"" help:"Show or set which values this node fetches of a Space."`
	Quota     quotaCmd     `cmd:"" help:"Show or set how much a Space may hold."`
	Usage     usageCmd     `cmd:"" help:"List how much the Spaces hold."`

	Wallet   walletCmd   `cmd:"" help:"Make a key to try with, or tell whose a file holds, and print the id of its Space."`
	Login    loginCmd    `cmd:"" help:"Sign in to a Space as an app does, for kv, sql and delegate."`
	Kv       kvCmd       `cmd:"" name:"kv" help:"Read and write keys of a Space: get, put, ls, rm."`
	SQL      sqlCmd      `cmd:"" name:"sql" help:"Carry out a statement in a database of a Space."`
	Load     loadCmd     `cmd:"" help:"Write what a SQLite file holds into a database of a Space."`
	Delegate delegateCmd `cmd:"" help:"Give another DID abilities in a Space."`

	ImportReference importReferenceCmd `cmd:"" help:"Take over the data of a node of the reference implementation."`
	Export          exportCmd          `cmd:"" help:"Write a Space to a CARv1 file."`
	Import          importCmd          `cmd:"" help:"Read a Space from a file of export. The node must be stopped."`
	Backup          backupCmd          `cmd:"" help:"Copy the data of the running node (SQLite, values on local disk)."`
	Gc              gcCmd              `cmd:"" name:"gc" help:"Free the values that no key holds. The node must be stopped."`
	Compact         compactCmd         `cmd:"" help:"Make the files of the database as small as what is in them. The node must be stopped."`
	Verify          verifyCmd          `cmd:"" help:"Hash and judge everything stored again."`

	Settings   configCmd                 `cmd:"" name:"config" help:"Check the configuration."`
	Completion kongcompletion.Completion `cmd:"" help:"Print what completes commands in bash, zsh or fish."`
	Man        manCmd                    `cmd:"" help:"Print the manual page, for man."`
	Version    versionCmd                `cmd:"" help:"Print the version."`
}

// program is what every verb gets.
type program struct {
	config  string // --config
	datadir string // --datadir
	url     string // --url
	token   string // --token
	model   *kong.Application
	out     io.Writer
	err     io.Writer
}

func main() {
	private.Umask()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	var c cli
	parser, err := newParser(&c, out, errs)
	if err != nil {
		fmt.Fprintln(errs, "tinycloud-peer:", err)
		return exitFailure
	}
	kongcompletion.Register(parser)         // answers a shell that completes a line, and ends the process
	if len(args) > 0 && args[0] == "help" { // kong knows the flag only
		args = append(args[1:len(args):len(args)], "--help")
	}
	err = checkArguments(parser.Model, args)
	var parsed *kong.Context
	if err == nil {
		parsed, err = parser.Parse(args)
	}
	if err != nil {
		fmt.Fprintf(errs, "tinycloud-peer: %v\nRun \"tinycloud-peer --help\" for usage.\n", err)
		return exitUsage
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	p := &program{config: c.Config, datadir: c.Datadir, url: c.URL, token: c.Token, model: parser.Model, out: out, err: errs}
	if err := parsed.Run(p); err != nil {
		if !errors.Is(err, errReported) {
			fmt.Fprintln(errs, "tinycloud-peer:", tinycloud.Plain(err))
		}
		return exitFailure
	}
	return exitOK
}

func newParser(c *cli, out, errs io.Writer) (*kong.Kong, error) {
	return kong.New(c, kong.Name("tinycloud-peer"), kong.Description("A TinyCloud host that replicates its Spaces."),
		kong.Writers(out, errs), kong.Vars{"version": "tinycloud-peer " + version()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}))
}

// errReported ends with a failure that was told already.
var errReported = errors.New("reported")

// load reads the configuration.
func (p *program) load() (config.Config, []config.Warning, error) { return config.Load(p.source()) }

// source is where the configuration comes from.
func (p *program) source() config.LoadOptions {
	return config.LoadOptions{Environ: os.Environ(), File: p.config, Datadir: p.datadir}
}

// node returns the client of the running node, and the directory where texts wait for their signature: its data directory,
// or that of a user for a node elsewhere.
func (p *program) node() (*admin.Client, string, error) {
	if p.url != "" {
		dir, err := os.UserCacheDir()
		return admin.Remote(strings.TrimSuffix(p.url, "/"), p.token), filepath.Join(dir, "tinycloud-peer"), err
	}
	cfg, _, err := p.load()
	if err != nil {
		return nil, "", err
	}
	if cfg.Storage.Datadir == "" {
		return nil, "", errors.New("storage.datadir is not set, and a running node is found by it: set it, or --datadir or --url")
	}
	return admin.Local(cfg.Storage.Datadir), cfg.Storage.Datadir, nil
}
