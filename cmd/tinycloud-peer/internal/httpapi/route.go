package httpapi

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const hostKeyPrefix = "/peer/generate/"

// route finds who answers. Paths are compared as written: http.ServeMux would redirect "//" and dot segments,
// and clients take a redirect for an error.
func (a *API) route(r *http.Request) endpoint {
	path := r.URL.EscapedPath()
	e, ok := a.routes[path]
	if space, found := strings.CutPrefix(path, hostKeyPrefix); found && !strings.Contains(space, "/") {
		e, ok = endpoint{"peer_generate", http.MethodGet, func(w http.ResponseWriter, _ *http.Request) error {
			return a.serveHostKey(w, space)
		}}, true
	}
	if id, found := strings.CutPrefix(path, signedPrefix); found && !strings.Contains(id, "/") {
		e, ok = a.signedEndpoint(id), true
	}
	public, isPublic := a.routePublic(path)
	if isPublic {
		e, ok = public, true
	}
	if hook, found := a.routeHooks(r.Method, path); found {
		e, ok = hook, true
	}
	if network, found := a.routeNetworks(r, path); found {
		e, ok = network, true
	}
	switch {
	case isPublic && r.Method == http.MethodOptions:
		return endpoint{name: "options", serve: a.preflightPublic}
	case r.Method == http.MethodOptions:
		return endpoint{name: "options", serve: serveNothing}
	case ok && (r.Method == e.method || r.Method == http.MethodHead && e.method == http.MethodGet):
		return e
	}
	return endpoint{name: "none", serve: serveUnknown}
}

func serveNothing(http.ResponseWriter, *http.Request) error { return nil }

func serveUnknown(http.ResponseWriter, *http.Request) error {
	return tinycloud.Refuse(tinycloud.ErrNotFound, "The requested resource could not be found.")
}

func (a *API) serve(rw http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w := &response{ResponseWriter: rw, control: http.NewResponseController(rw), idle: a.o.Idle}
	w.extend()
	trace := a.setHeaders(w.Header())
	e := a.route(r)
	defer func() {
		if v := recover(); v != nil {
			a.recovered(w, r, v)
		}
		a.metrics.requests.WithLabelValues(e.name, strconv.Itoa(w.code())).Inc()
		a.log.DebugContext(r.Context(), "request", "route", e.name, "method", r.Method, "status", w.code(),
			"duration", time.Since(began), "trace", trace)
		if w.cut {
			panic(http.ErrAbortHandler)
		}
	}()
	if err := e.serve(w, r); err != nil {
		a.refuse(w, r, err)
	}
}

// recovered answers for a handler that panicked.
func (a *API) recovered(w *response, r *http.Request, v any) {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		w.cut = true
		return
	}
	a.log.ErrorContext(r.Context(), "handler panicked", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if w.status != 0 {
		w.cut = true
		return
	}
	sendText(w, http.StatusInternalServerError, internalText)
}

// What every response carries, and with CORS.
var (
	everyHeaders = headers("X-Content-Type-Options", "nosniff", "X-Frame-Options", "SAMEORIGIN", "Permissions-Policy", "interest-cohort=()")
	corsHeaders  = headers("Access-Control-Allow-Origin", "*", "Access-Control-Allow-Methods", "POST, PUT, GET, OPTIONS, DELETE",
		"Access-Control-Expose-Headers", "*, Authorization", "Access-Control-Allow-Headers", "*, Authorization",
		"Access-Control-Allow-Credentials", "true")
)

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

// setHeaders sets what every response carries and returns the request's id.
func (a *API) setHeaders(h http.Header) string {
	maps.Copy(h, everyHeaders) // whoever adds to one of them has a list of his own
	if a.o.CORS {
		maps.Copy(h, corsHeaders)
	}
	if a.o.TraceHeader == "" {
		return ""
	}
	var id [16]byte
	rand.Read(id[:]) // never fails
	trace := hex.EncodeToString(id[:])
	h.Set(a.o.TraceHeader, trace)
	return trace
}

// response remembers what was answered and moves the connection's deadlines on as bytes flow.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	idle    time.Duration
	status  int  // 0 before the header is written
	cut     bool // the connection must not be used again
	listens bool // the client has nothing more to say
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.extend()
	return w.ResponseWriter.Write(p)
}

// listen ends the deadline of reading: the client only listens from now on, however long there is nothing to hear.
func (w *response) listen() {
	w.listens = true
	_ = w.control.SetReadDeadline(time.Time{})
}

// extend gives the client time for the next bytes. Writing may take longer, so that there is time to answer when
// reading has timed out. A connection that has no deadlines is left without.
func (w *response) extend() {
	now := time.Now()
	if !w.listens {
		_ = w.control.SetReadDeadline(now.Add(w.idle))
	}
	_ = w.control.SetWriteDeadline(now.Add(2 * w.idle))
}
