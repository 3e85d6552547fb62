package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/lmittmann/tint"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/memory"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

type serveCmd struct {
	NewIdentity bool `help:"Go on with data that are of a node with another secret, or whose secret is lost: as another host of its Spaces."`
	// Lease ends the node when its parent is gone, however that ended.
	Lease bool `hidden:"" help:"Stop when standard input is closed."`
}

// clock is the node's; nil means time.Now. Tests run nodes whose clocks are off.
var clock func() time.Time

// services are those of tests.
var services []service.HTTP

// withoutSQL is of hosts that tests run.
var withoutSQL bool

// servicesOf are those that stand beside key-value on a node. Processes that share a database each have files of their own.
func servicesOf(cfg config.Config, log *slog.Logger) []service.HTTP {
	o := sql.Options{Log: log.With("part", "sql")}
	if cfg.Storage.Datadir != "" {
		o.Dir = filepath.Join(cfg.Storage.Datadir, "sql")
	}
	if withoutSQL {
		return services
	}
	return append([]service.HTTP{sql.New(o)}, services...)
}

// Run runs the node until a signal.
func (c *serveCmd) Run(ctx context.Context, p *program) error {
	memory.Bound()
	cfg, warnings, err := p.load()
	if err != nil {
		return err
	}
	log := slog.New(logHandler(p.out, cfg))
	own, err := p.chosen()
	if err != nil {
		return err
	}
	// Before the first line of libp2p, which is told nothing but what needs attention.
	gologshim.SetDefaultHandler(atLeast{log.Handler(), slog.LevelWarn})
	if err := p.announce(ctx, log, cfg); err != nil {
		return err
	}
	for _, w := range warnings {
		log.WarnContext(ctx, "configuration", "warning", w.String())
	}
	if c.Lease {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() { // ends with the process
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	own.Log, own.Version, own.Now, own.Busy, own.Services, own.NewIdentity = log, version(), clock, memory.Busy, servicesOf(cfg, log), c.NewIdentity
	n, err := node.New(ctx, cfg, own)
	if err != nil {
		return err
	}
	if terminal(p.out) && cfg.Log.Format == config.LogText {
		banner(p.out, n, cfg)
	}
	return n.Run(ctx)
}

// chosen is what the operator leaves to the node.
func (p *program) chosen() (o node.Options, err error) {
	metrics, err := p.source().Sets("prometheus.port")
	if err != nil {
		return o, err
	}
	listen, err := p.source().Sets("p2p.listen")
	if err != nil {
		return o, err
	}
	o.PagePortAsked, err = p.source().Sets("admin.port")
	o.AnyMetricsPort, o.AnyListenPort = !metrics, !listen
	return o, err
}

// banner tells who started a node on a terminal where it is and what to do next.
func banner(out io.Writer, n *node.Node, cfg config.Config) {
	fmt.Fprintf(out, "\ntinycloud-peer %s\n\n  API      %s\n  metrics  %s\n", version(), n.URL(), n.MetricsURL())
	if url := n.PageURL(); url != "" {
		fmt.Fprintf(out, "  page     %s\n", url)
	}
	for _, a := range n.Addrs() {
		fmt.Fprintf(out, "  libp2p   %s\n", shortAddr(a))
	}
	where := ""
	if datadir, err := filepath.Abs(cfg.Storage.Datadir); err == nil && cfg.Storage.Datadir != "" {
		fmt.Fprintf(out, "  data     %s\n", datadir)
		where = " --datadir " + cfg.Storage.Datadir
	}
	fmt.Fprintf(out, "\nNext, in another terminal: tinycloud-peer%s page, for a link to its web page; or status, or host SPACE. Ctrl-C stops the node.\n\n", where)
}

// announce tells what the node starts from: where its settings and its data are.
func (p *program) announce(ctx context.Context, log *slog.Logger, cfg config.Config) error {
	file, err := p.source().Locate()
	if err != nil {
		return err
	}
	datadir := cfg.Storage.Datadir
	if datadir != "" {
		if datadir, err = filepath.Abs(datadir); err != nil {
			return err
		}
	}
	log.InfoContext(ctx, "starting", "version", version(), "configuration", cmp.Or(file, "none"), "datadir", cmp.Or(datadir, "none"), "database", cfg.Storage.Database.String())
	return nil
}

func logHandler(w io.Writer, cfg config.Config) slog.Handler {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	switch cfg.LogLevel {
	case config.LogOff:
		return slog.DiscardHandler
	case config.LogCritical:
		o.Level = slog.LevelError
	case config.LogDebug:
		o.Level = slog.LevelDebug
	}
	if cfg.Log.Format == config.LogJSON {
		return slog.NewJSONHandler(w, o)
	}
	if terminal(w) {
		return tint.NewTextHandler(w, &tint.Options{Level: o.Level, TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != ""})
	}
	return slog.NewTextHandler(w, o)
}

// atLeast drops lines below a level of its own.
type atLeast struct {
	slog.Handler
	least slog.Level
}

func (a atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= a.least && a.Handler.Enabled(ctx, l)
}

func (a atLeast) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeast{a.Handler.WithAttrs(attrs), a.least}
}

func (a atLeast) WithGroup(name string) slog.Handler {
	return atLeast{a.Handler.WithGroup(name), a.least}
}
