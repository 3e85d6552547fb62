package node

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
)

// Bounds of an HTTP connection. Bodies and answers have deadlines of their own, see [callers.Pace].
const (
	headerTimeout  = 10 * time.Second
	requestTimeout = time.Minute // of what the server answers itself
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 128 << 10 // tokens come in headers, 64 KiB at most
	drainTimeout   = 20 * time.Second
	maxConns       = 2048 // at once on a listener; each may hold a small body in memory
	reservedConns  = 64   // of them for this machine and trusted proxies
	addressConns   = 64   // of one client
	siteConns      = 256  // of all clients of an IPv6 /48
	clientRequests = 128  // under way, of one client: HTTP/2 has many on a connection
)

// httpSide is what all listeners of the node have in common.
type httpSide struct {
	limits callers.Limits
	log    *slog.Logger
}

// newHTTPSide bounds clients; trusted tells which addresses are of proxies.
func newHTTPSide(trusted func(netip.Addr) bool, m *callers.Metrics, log *slog.Logger) httpSide {
	return httpSide{callers.Limits{
		Total: maxConns, Reserved: reservedConns, PerAddress: addressConns, PerSite: siteConns, Trusted: trusted, Metrics: m,
	}, log}
}

// serve answers on a listener until ctx ends, then accepts no more and finishes what it accepted. With certificates it
// speaks TLS, and HTTP/2.
func (s httpSide) serve(ctx context.Context, l net.Listener, h http.Handler, certificates *tls.Config) error {
	bounded, pace, log := callers.Listen(l, s.limits), callers.DefaultPace(), s.log
	pace.Metrics = s.limits.Metrics
	server := &http.Server{
		Handler: pace.Handler(h), ConnState: bounded.State, MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: 2 * requestTimeout, IdleTimeout: idleTimeout,
		ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		TLSConfig: certificates, HTTP2: http2Bounds(),
	}
	failed := make(chan error, 1)
	go func() {
		if certificates != nil {
			failed <- server.ServeTLS(bounded, "", "") // the certificates are in its configuration
			return
		}
		failed <- server.Serve(bounded)
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(draining); err != nil {
		log.WarnContext(ctx, "requests cut off", "listener", l.Addr().String(), "error", err)
		_ = server.Close() // what Shutdown left
	}
	<-failed // it is http.ErrServerClosed
	return nil
}

// http2Bounds keep what a connection may have in memory near that of one of HTTP/1.
func http2Bounds() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams: addressConns, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 256 << 10,
		WriteByteTimeout: 2 * requestTimeout, SendPingTimeout: requestTimeout, PingTimeout: headerTimeout,
	}
}

// publicHandler is the API and, behind the admin secret, /admin.
func (n *Node) publicHandler() http.Handler {
	return n.withAdmin(n.authenticated(n.operatorHandler()))
}

// localHandler is what the socket of the data directory answers: whoever may open it is the operator.
func (n *Node) localHandler() http.Handler {
	mux := n.operatorHandler()
	mux.HandleFunc("POST /admin/backup", answer(n.adminBackup)) // it writes where it is told
	mux.HandleFunc("POST /admin/spaces/{space}/query", n.adminQuery)
	mux.HandleFunc("GET /admin/spaces/{space}/export", n.adminExport)
	return n.withAdmin(mux)
}

func (n *Node) withAdmin(admin http.Handler) http.Handler {
	api := n.api.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.EscapedPath(), "/admin/") {
			admin.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

func (n *Node) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: headerTimeout}))
	return mux
}
