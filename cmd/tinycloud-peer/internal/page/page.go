package page

import (
	"embed"
	"encoding/json"
	"io/fs"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

//go:embed static
var static embed.FS

const (
	// Header carries the token of a session: no other site can have a browser send it.
	Header = "TinyCloud-Page"

	policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
		"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

	maxLogin = 1 << 10 // bytes of a body of POST /login
	failures = 10      // wrong codes and cookies of a client at once
	retries  = 6       // more of them a minute
	delay    = 500 * time.Millisecond
)

// Options of a [Page].
type Options struct {
	Admin   http.Handler // the admin API, paths /admin/…; whoever comes there is the operator
	Address netip.Addr   // that is listened on
	Port    string       // likewise; it names the cookie, since a browser has one jar for all ports of a machine
	Now     func() time.Time
	Log     *slog.Logger
}

// Page answers the operator's browser.
type Page struct {
	o      Options
	logins *logins
	wrong  *callers.Budget
}

// New returns a page without log-ins.
func New(o Options) *Page {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Page{o: o, logins: newLogins(o.Now), wrong: callers.NewBudget(retries, failures)}
}

// Code makes a code by which one browser logs in, until it expires.
func (p *Page) Code() (code string, expires time.Time) { return p.logins.code() }

// Handler answers everything that comes to the page's listener.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.file)
	mux.HandleFunc("GET /static/{name}", p.file)
	mux.HandleFunc("POST /login", p.login)
	mux.HandleFunc("POST /logout", p.logout)
	mux.Handle("/admin/", p.loggedIn(p.o.Admin))
	// A browser says of each request whether this page makes it; one that changes something has to come from here.
	same := http.NewCrossOriginProtection()
	same.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, "another site asks for this")
	}))
	return p.here(protect(same.Handler(mux)))
}

// here refuses requests to other hosts than this one: a name of an attacker's may lead here.
func (p *Page) here(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.names(r) {
			refuse(w, http.StatusMisdirectedRequest, "open the page by the address of this machine, or as localhost")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// names reports whether a request names this machine. Ports do not matter: a tunnel may have another.
func (p *Page) names(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil || a.Zone() != "" {
		return false
	}
	a = a.Unmap()
	if a.IsLoopback() || a == p.o.Address.Unmap() && !a.IsUnspecified() {
		return true
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return local != nil && local.AddrPort().Addr().Unmap() == a
}

// protect sets what keeps a browser from mixing the page with others.
func protect(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
		} {
			w.Header().Set(name, value)
		}
		h.ServeHTTP(w, r)
	})
}

// file sends a static file. They tell nothing of the node.
func (p *Page) file(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if name == "" {
		name = "index.html"
	}
	b, err := fs.ReadFile(static, path.Join("static", path.Base(name)))
	if err != nil {
		refuse(w, http.StatusNotFound, "no such file")
		return
	}
	kind := mime.TypeByExtension(path.Ext(name))
	if path.Ext(name) == ".js" {
		kind = "text/javascript; charset=utf-8" // whatever the system's table says
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(b) // the browser may have gone
}

type loginRequest struct {
	Code string `json:"code"`
}

type loginAnswer struct {
	Token string `json:"token"` // for [Header]
}

func (p *Page) login(w http.ResponseWriter, r *http.Request) {
	if !p.patient(r) {
		return
	}
	var q loginRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLogin)).Decode(&q); err != nil {
		refuse(w, http.StatusBadRequest, "expected {code}")
		return
	}
	cookie, token, ok := p.logins.use(q.Code)
	if !ok {
		p.wrong.Allow(r.RemoteAddr)
		p.o.Log.WarnContext(r.Context(), "a log-in to the page was refused: its code is unknown, used or expired")
		refuse(w, http.StatusForbidden, "this link was used or has expired: tinycloud-peer page prints another")
		return
	}
	p.o.Log.InfoContext(r.Context(), "a browser logged in to the page")
	http.SetCookie(w, p.cookie(cookie, int(sessionLife.Seconds())))
	send(w, http.StatusOK, loginAnswer{token})
}

func (p *Page) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(p.cookieName()); err == nil {
		p.logins.end(c.Value)
	}
	http.SetCookie(w, p.cookie("", -1))
	send(w, http.StatusOK, struct{}{})
}

func (p *Page) cookieName() string { return "tinycloud-page-" + p.o.Port }

func (p *Page) cookie(value string, seconds int) *http.Cookie {
	return &http.Cookie{Name: p.cookieName(), Value: value, Path: "/", MaxAge: seconds, HttpOnly: true, SameSite: http.SameSiteStrictMode}
}

// loggedIn lets the operator's browser through.
func (p *Page) loggedIn(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.patient(r) {
			return
		}
		c, err := r.Cookie(p.cookieName())
		token := r.Header.Get(Header)
		if err != nil || token == "" || !p.logins.has(c.Value, token) {
			if err == nil {
				p.wrong.Allow(r.RemoteAddr)
			}
			refuse(w, http.StatusUnauthorized, "not logged in: tinycloud-peer page prints a link")
			return
		}
		r.Header.Del("Cookie") // it is for nobody else
		r.Header.Del("Authorization")
		h.ServeHTTP(w, r)
	})
}

// patient has a client that was wrong too often wait, before anything is looked at; it is false when the client has gone.
func (p *Page) patient(r *http.Request) bool {
	return p.wrong.Left(r.RemoteAddr) || wait.For(r.Context(), delay)
}

func refuse(w http.ResponseWriter, status int, text string) {
	send(w, status, struct {
		Error string `json:"error"`
	}{text})
}

func send(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the browser may have gone
}
