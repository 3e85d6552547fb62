package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

const (
	webhooksPath = "/hooks/webhooks"
	maxHookQuery = 8 << 10 // bytes of a list's query
)

// routeHooks finds who answers below /hooks/, where a path may have several methods.
func (a *API) routeHooks(method, path string) (e endpoint, ok bool) {
	if a.o.Hooks == nil {
		return e, false
	}
	id, one := strings.CutPrefix(path, webhooksPath+"/")
	switch {
	case path == "/hooks/tickets":
		e = endpoint{"hook_tickets", http.MethodPost, a.serveHookTicket}
	case path == "/hooks/events":
		e = endpoint{"hook_events", http.MethodGet, a.serveHookEvents}
	case path == webhooksPath && method == http.MethodPost:
		e = endpoint{"webhook_register", http.MethodPost, a.serveRegister}
	case path == webhooksPath:
		e = endpoint{"webhook_list", http.MethodGet, a.serveWebhooks}
	case one && id != "" && !strings.Contains(id, "/"):
		e = endpoint{"webhook_unregister", http.MethodDelete, func(w http.ResponseWriter, r *http.Request) error {
			return a.serveUnregister(w, r, id)
		}}
	default:
		return e, false
	}
	return e, true
}

// admitHook admits the invocation of a request. It stays usable until it is burned.
func (a *API) admitHook(r *http.Request) (*capstore.Token, error) {
	token, err := invocationOf(r)
	if err != nil {
		return nil, err
	}
	return token, a.o.Store.Admit(r.Context(), token)
}

// serveHookTicket answers with a ticket for a stream of events. It is given at once also while the history is awaited
// that tells whether the signer may have it: the stream waits for that.
func (a *API) serveHookTicket(w http.ResponseWriter, r *http.Request) error {
	token, err := invocationOf(r)
	if err != nil {
		return err
	}
	later, err := a.o.Store.AdmitEarly(r.Context(), token)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, hooks.MaxBody)
	if err != nil {
		return err
	}
	q, err := hooks.ParseTicketRequest(body)
	if err != nil {
		return err
	}
	ticket, err := a.o.Hooks.Issue(r.Context(), token, q, later)
	if err != nil {
		return err
	}
	if err := a.o.Store.Burn(r.Context(), token); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return sendJSON(w, ticket)
}

// serveHookEvents answers with server-sent events until the ticket ends. Heartbeats come more often than the
// deadlines of the connection, which every write moves on.
func (a *API) serveHookEvents(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = query.Get("lastEventId")
	}
	stream, err := a.o.Hooks.Open(r.Context(), query.Get("ticket"), last, callers.Stranger(r.RemoteAddr))
	if err != nil {
		return err
	}
	defer stream.Close()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // of a proxy
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if x, ok := w.(*response); ok {
		x.listen()
	}
	flush := http.NewResponseController(w)
	err = stream.Run(r.Context(), func(b []byte) error {
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		if err := flush.Flush(); err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		return nil
	})
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// errGone says that a client has gone away.
var errGone = errors.New("client gone")

// serveRegister stores a webhook. The answer is sent when it is durable.
func (a *API) serveRegister(w http.ResponseWriter, r *http.Request) error {
	token, err := a.admitHook(r)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, hooks.MaxBody)
	if err != nil {
		return err
	}
	q, err := hooks.ParseRegistration(body)
	if err != nil {
		return err
	}
	if err := q.Authorise(token); err != nil {
		return err
	}
	if err := a.o.Store.Burn(r.Context(), token); err != nil {
		return err
	}
	record, err := a.o.Hooks.Register(r.Context(), token, q)
	if err != nil {
		return err
	}
	return sendJSON(w, record)
}

// serveWebhooks lists webhooks. Without a space in the query the invocation's is meant, without a service
// all.
func (a *API) serveWebhooks(w http.ResponseWriter, r *http.Request) error {
	token, err := a.admitHook(r)
	if err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(r.URL.RawQuery) > maxHookQuery {
		return badOption("Invalid query")
	}
	space, err := hookSpace(query.Get("space"), token)
	if err != nil {
		return err
	}
	records, err := a.o.Hooks.List(r.Context(), token, space, query.Get("service"), query.Get("prefix"))
	if err != nil {
		return err
	}
	if err := a.o.Store.Burn(r.Context(), token); err != nil {
		return err
	}
	return sendJSON(w, records)
}

func hookSpace(text string, token *capstore.Token) (tinycloud.SpaceID, error) {
	if text == "" {
		if spaces := token.Spaces(); len(spaces) == 1 {
			return spaces[0], nil
		}
	}
	space, err := tinycloud.ParseSpaceID(text)
	if err != nil {
		return space, badOption("Invalid space ID")
	}
	return space, nil
}

// serveUnregister removes a webhook.
func (a *API) serveUnregister(w http.ResponseWriter, r *http.Request, id string) error {
	token, err := a.admitHook(r)
	if err != nil {
		return err
	}
	if err := a.o.Store.Burn(r.Context(), token); err != nil {
		return err
	}
	if err := a.o.Hooks.Unregister(r.Context(), token, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
