package callers_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
)

// counted checks what metrics say, by name and label.
func counted(t *testing.T, m *callers.Metrics, want map[string]float64) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, x := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "tinycloud_http_") + " " + x.GetLabel()[0].GetValue()
			if got := x.GetCounter().GetValue(); got != want[name] {
				t.Errorf("%s: %v, want %v", name, got, want[name])
			}
			delete(want, name)
		}
	}
	if len(want) > 0 {
		t.Error("not counted:", want)
	}
}

// TestShareOfASite has one who owns a /48 come from as many addresses: it closes and is refused its own connections only.
func TestShareOfASite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		m := callers.NewMetrics()
		n := serve(t, callers.Limits{Total: 100, Reserved: 10, PerAddress: 3, PerSite: 5, Metrics: m}, func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				<-release
			}
		})
		other := n.dial("2001:db8:2::1") // before all of them, so that it is the idlest
		defer other.Close()
		time.Sleep(time.Second)
		var owned []net.Conn
		for i := range 6 {
			owned = append(owned, n.dial(fmt.Sprintf("2001:db8:1:%x::1", i+1)))
			time.Sleep(time.Second)
		}
		if _, err := owned[0].Read(make([]byte, 1)); err != io.EOF {
			t.Error("the idlest of six was not closed:", err)
		}
		for _, c := range owned[1:] {
			go func() { _, _ = io.WriteString(c, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") }()
		}
		synctest.Wait()
		if status := ask(n.dial("2001:db8:1:ffff::1")); status != 0 {
			t.Error("a sixth beside five busy ones:", status)
		}
		if status := ask(other); status != http.StatusOK {
			t.Error("another site:", status)
		}
		for i := range 6 { // IPv4 has no sites
			c := n.dial(fmt.Sprintf("192.0.2.%d", i))
			if status := ask(c); status != http.StatusOK {
				t.Error("IPv4:", status)
			}
			_ = c.Close()
		}
		counted(t, m, map[string]float64{
			"connections_total accepted": 13, "connections_total refused": 1, "connections_total closed": 1,
			"limited_total client": 0, "limited_total total": 0, "limited_total pace": 0,
		})
		close(release)
		synctest.Wait()
		for _, c := range owned {
			_ = c.Close()
		}
	})
}

// TestTurns has clients send more requests at once than they may, over as few connections as they like.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		proxy := netip.MustParseAddr("198.51.100.1")
		m, release := callers.NewMetrics(), make(chan struct{})
		h := callers.NewTurns(callers.Limits{
			Total: 7, Reserved: 2, Metrics: m, Trusted: func(a netip.Addr) bool { return a == proxy },
		}, 3).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				<-release
			}
		}))
		send := func(remote, path string) *httptest.ResponseRecorder {
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr = remote
			h.ServeHTTP(w, r)
			return w
		}
		check := func(remote string, want int) {
			t.Helper()
			if w := send(remote, "/"); w.Code != want || (want != http.StatusOK) != (w.Header().Get("Retry-After") != "") {
				t.Errorf("%s: %d, want %d", remote, w.Code, want)
			}
		}
		for i := range 3 {
			go send(fmt.Sprintf("[2001:db8::%d]:1", i), "/wait")
		}
		synctest.Wait()
		check("[2001:db8::9]:1", http.StatusTooManyRequests)
		check("192.0.2.1:1", http.StatusOK)
		for range 2 {
			go send("192.0.2.1:1", "/wait")
		}
		synctest.Wait()
		check("192.0.2.1:1", http.StatusServiceUnavailable)
		for _, known := range []string{"127.0.0.1:1", "@", proxy.String() + ":1"} {
			check(known, http.StatusOK)
		}
		counted(t, m, map[string]float64{
			"connections_total accepted": 0, "connections_total refused": 0, "connections_total closed": 0,
			"limited_total client": 1, "limited_total total": 1, "limited_total pace": 0,
		})
		close(release)
		synctest.Wait()
		check("[2001:db8::9]:1", http.StatusOK)
	})
}

// TestTrickleOfHTTP2 sends one of two bodies on a connection too slowly: that request ends, and the other goes on.
func TestTrickleOfHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, pace, n := callers.NewMetrics(), callers.DefaultPace(), newNetwork()
		pace.Metrics = m
		cut := make(chan error, 1)
		server := &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, Handler: pace.Handler(http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 2 {
					t.Error("not HTTP/2 but", r.Proto)
				}
				_, err := io.Copy(io.Discard, r.Body)
				if r.URL.Path == "/slow" {
					cut <- err
				} else if err != nil {
					t.Error(r.URL.Path, err)
				}
			}))}
		done := make(chan error, 1)
		go func() { done <- server.ServeTLS(n, "", "") }()
		client := &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return n.dial("192.0.2.1"), nil },
		}
		post := func(path, piece string) (*http.Response, error) {
			body, writer := io.Pipe()
			go func() {
				var err error
				for range 90 {
					if _, err = io.WriteString(writer, piece); err != nil {
						break
					}
					time.Sleep(time.Second)
				}
				_ = writer.CloseWithError(err)
			}()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://node"+path, body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.RoundTrip(r)
			_ = body.Close()
			if err == nil {
				_ = resp.Body.Close()
			}
			return resp, err
		}
		began, slow := time.Now(), make(chan time.Duration, 1)
		go func() {
			_, _ = post("/slow", "x")
			slow <- time.Since(began)
		}()
		if resp, err := post("/honest", strings.Repeat("x", 4096)); err != nil || resp.StatusCode != http.StatusOK {
			t.Error(resp, err)
		}
		if err, took := <-cut, <-slow; err == nil || took > time.Minute {
			t.Error("the slow one:", err, took)
		}
		counted(t, m, map[string]float64{
			"connections_total accepted": 0, "connections_total refused": 0, "connections_total closed": 0,
			"limited_total client": 0, "limited_total total": 0, "limited_total pace": 1,
		})
		client.CloseIdleConnections()
		_ = server.Close()
		<-done
	})
}

// certificate is one that httptest has.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return s.TLS.Certificates[0]
}
