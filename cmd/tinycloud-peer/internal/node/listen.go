package node

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listen opens the listeners: of the API, the metrics, the page and the socket.
func (n *Node) listen() (err error) {
	n.public, err = listenTCP(n.cfg.Address.String(), n.cfg.Port)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("address, port: another program has %s:%d: stop it, or set another port, as with TINYCLOUD_PORT=%d", n.cfg.Address, n.cfg.Port, n.cfg.Port+10)
	}
	if err != nil {
		return fmt.Errorf("address, port: %w", err)
	}
	if err := n.listenTLS(); err != nil {
		return err
	}
	n.metrics, err = listenTCP(n.cfg.PrometheusAddress.String(), n.cfg.PrometheusPort)
	if n.o.AnyMetricsPort && errors.Is(err, syscall.EADDRINUSE) {
		n.log.Warn("the port of the metrics is taken, they are at another: set prometheus.port", "error", err)
		n.metrics, err = listenTCP(n.cfg.PrometheusAddress.String(), 0)
	}
	if err != nil {
		return fmt.Errorf("prometheus.address, prometheus.port: %w", err)
	}
	if err := n.listenPage(); err != nil {
		return err
	}
	if n.cfg.Storage.Datadir == "" {
		return nil
	}
	n.admin, err = listenSocket(n.cfg.Storage.Datadir)
	if err == nil { // no other process has the directory
		err = removeCopies(n.cfg.Storage.Datadir)
	}
	if err != nil {
		return fmt.Errorf("storage.datadir: %w", err)
	}
	return nil
}

func listenTCP(address string, port uint16) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(port)))
}

// URL is where the HTTP API is, with the port that was bound.
func (n *Node) URL() string {
	if n.tls != nil {
		return "https://" + n.public.Addr().String()
	}
	return "http://" + n.public.Addr().String()
}

// MetricsURL is where the metrics are.
func (n *Node) MetricsURL() string { return "http://" + n.metrics.Addr().String() + "/metrics" }
