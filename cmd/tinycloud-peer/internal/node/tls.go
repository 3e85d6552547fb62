package node

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sync/errgroup"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/certs"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/private"
)

// listenTLS finds the certificates of the public listener, which is open, and opens the one that redirects to it.
func (n *Node) listenTLS() (err error) {
	cfg := n.cfg.TLS
	if !cfg.On() {
		return nil
	}
	plain := 0
	if cfg.Plain {
		if n.plain, err = listenTCP(n.cfg.Address.String(), cfg.PlainPort); err != nil {
			return fmt.Errorf("tls.plain_port: %w", err)
		}
		plain = portOf(n.plain)
	}
	log := n.log.With("part", "tls")
	if cfg.Cert != "" {
		files, err := certs.NewFiles(cfg.Cert, cfg.Key, log)
		if err != nil {
			return fmt.Errorf("tls.cert, tls.key: %w", err)
		}
		n.tls = files.Config()
		return nil
	}
	for _, m := range private.Mend(n.cfg.TLSDir()) {
		log.Warn("files of certificates", "warning", m.String())
	}
	n.acme = certs.NewACME(certs.ACMEOptions{
		Domains: cfg.Domain, CA: cfg.CA, Dir: n.cfg.TLSDir(),
		Host: n.cfg.Address.String(), Port: portOf(n.public), Plain: plain, Log: log,
	})
	n.tls = n.acme.Config()
	return nil
}

// serveTLS gets certificates, and redirects who comes without.
func (n *Node) serveTLS(ctx context.Context, g *errgroup.Group, side httpSide) {
	var redirect http.Handler
	if n.plain != nil {
		redirect = certs.Redirect(portOf(n.public), n.cfg.TLS.Domain)
	}
	if n.acme != nil {
		redirect = n.acme.Challenges(redirect)
		g.Go(func() error {
			if err := n.acme.Run(ctx); err != nil {
				return fmt.Errorf("tls.domain: %w", err)
			}
			return nil
		})
	}
	if n.plain != nil {
		g.Go(func() error { return side.serve(ctx, n.plain, redirect, nil) })
	}
}

func portOf(l net.Listener) int {
	if addr, ok := l.Addr().(*net.TCPAddr); ok {
		return addr.Port
	}
	return 0
}
