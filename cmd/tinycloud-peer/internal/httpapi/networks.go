package httpapi

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
)

// Paths of encryption networks.
const (
	networksPath    = "/encryption/networks"
	wellKnownPrefix = "/.well-known/encryption/network/"
)

// routeNetworks finds who answers below the paths of encryption networks, within a client's budget.
func (a *API) routeNetworks(r *http.Request, path string) (endpoint, bool) {
	e, ok := a.findNetworks(r, path)
	serve := e.serve
	e.serve = func(w http.ResponseWriter, r *http.Request) error {
		if err := a.budgets.network(r); err != nil {
			return err
		}
		return serve(w, r)
	}
	return e, ok
}

// findNetworks is [API.routeNetworks] without the budget. The id of a network is one segment.
func (a *API) findNetworks(r *http.Request, path string) (endpoint, bool) {
	if a.o.Networks == nil {
		return endpoint{}, false
	}
	if name, ok := strings.CutPrefix(path, wellKnownPrefix); ok && !strings.Contains(name, "/") {
		return endpoint{"network_discover", http.MethodGet, func(w http.ResponseWriter, r *http.Request) error {
			return a.discoverNetwork(w, r, name)
		}}, true
	}
	rest, ok := strings.CutPrefix(path, networksPath)
	if !ok {
		return endpoint{}, false
	}
	if rest == "" {
		return endpoint{"network_create", http.MethodPost, a.createNetwork}, isJSON(r)
	}
	segment, does, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	with := func(f func(w http.ResponseWriter, r *http.Request, id string) error) handler {
		return func(w http.ResponseWriter, r *http.Request) error {
			id, err := url.PathUnescape(segment)
			if err != nil {
				return badOption("network id: " + err.Error())
			}
			return f(w, r, id)
		}
	}
	switch {
	case rest[0] != '/' || segment == "":
	case rest == "/"+segment:
		return endpoint{"network_describe", http.MethodGet, with(a.describeNetwork)}, true
	case does == "decrypt":
		return endpoint{"network_decrypt", http.MethodPost, with(a.decryptNetwork)}, isJSON(r)
	case does == "rotate":
		return endpoint{"network_rotate", http.MethodPost, with(a.rotateNetwork)}, true
	case does == "revoke":
		return endpoint{"network_revoke", http.MethodPost, with(a.revokeNetwork)}, true
	}
	return endpoint{}, false
}

// isJSON reports whether a request says that its body is JSON. A route that wants one is no route without.
func isJSON(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

// networkToken is the token of a request about a network.
func networkToken(r *http.Request) (*capstore.Token, error) {
	header, err := authorization(r)
	if err != nil {
		return nil, err
	}
	return capstore.ParseInvocation(header)
}

// signedJSON returns the token of a request and its body, which is JSON, however the token is judged.
func (a *API) signedJSON(w http.ResponseWriter, r *http.Request) (*capstore.Token, []byte, error) {
	token, err := networkToken(r)
	if err != nil {
		return nil, nil, err
	}
	body, err := jsonBody(w, r)
	return token, body, err
}

func jsonBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := readBody(w, r, encryption.MaxBody)
	if err != nil {
		return nil, err
	}
	if !json.Valid(body) {
		return nil, badOption("The body is not JSON")
	}
	return body, nil
}

// described is how a network is answered.
type described struct {
	Descriptor encryption.Descriptor `json:"descriptor"`
}

func (a *API) createNetwork(w http.ResponseWriter, r *http.Request) error {
	defer a.metrics.authorized("network_create", time.Now())
	token, body, err := a.signedJSON(w, r)
	if err != nil {
		return err
	}
	d, err := a.o.Networks.Create(r.Context(), token, body)
	if err != nil {
		return err
	}
	return sendJSON(w, described{d})
}

func (a *API) describeNetwork(w http.ResponseWriter, r *http.Request, text string) error {
	id, err := tinycloud.ParseNetworkID(text)
	if err != nil {
		return err
	}
	d, err := a.o.Networks.Describe(r.Context(), id)
	if err != nil {
		return err
	}
	return sendJSON(w, described{d})
}

// discoverNetwork answers for a named owner only: a name alone would be anybody's.
func (a *API) discoverNetwork(w http.ResponseWriter, r *http.Request, segment string) error {
	name, err := url.PathUnescape(segment)
	if err != nil {
		return badOption("network name: " + err.Error())
	}
	owner, ok := r.URL.Query()["ownerDid"]
	if !ok {
		return tinycloud.Refuse(tinycloud.ErrNotFound, "network not found")
	}
	if strings.Contains(name, ":") {
		return badOption("network name may not contain ':' or '/'")
	}
	id, err := tinycloud.ParseNetworkID("urn:tinycloud:encryption:" + owner[0] + ":" + name)
	if err != nil {
		return err
	}
	record, err := a.o.Networks.Discover(r.Context(), id)
	if err != nil {
		return err
	}
	return sendJSON(w, record)
}

func (a *API) decryptNetwork(w http.ResponseWriter, r *http.Request, id string) error {
	defer a.metrics.authorized("network_decrypt", time.Now())
	token, body, err := a.signedJSON(w, r)
	if err != nil {
		return err
	}
	answer, err := a.o.Networks.Decrypt(r.Context(), token, id, body)
	if err != nil {
		return err
	}
	return sendJSON(w, answer)
}

func (a *API) revokeNetwork(w http.ResponseWriter, r *http.Request, id string) error {
	token, err := networkToken(r)
	if err != nil {
		return err
	}
	if err := a.o.Networks.Revoke(r.Context(), token, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) rotateNetwork(w http.ResponseWriter, r *http.Request, id string) error {
	token, err := networkToken(r)
	if err != nil {
		return err
	}
	d, err := a.o.Networks.Rotate(r.Context(), token, id)
	if err != nil {
		return err
	}
	return sendJSON(w, described{d})
}

// invokeDecrypt serves an invocation that asks to decrypt, whatever else it names. Its window, signature and lifetime are
// judged first, and that it is used for the first time; what then speaks against it is a 403.
func (a *API) invokeDecrypt(w http.ResponseWriter, r *http.Request, token *capstore.Token) error {
	if err := a.budgets.network(r); err != nil {
		return err
	}
	if err := a.o.Store.Verify(r.Context(), token); err != nil {
		return err
	}
	body, err := jsonBody(w, r)
	if err != nil {
		return err
	}
	answer, err := a.o.Networks.DecryptInvoked(r.Context(), token, body)
	if err != nil {
		return err
	}
	return sendJSON(w, answer)
}

// attestation is what a node says that runs in no trusted environment.
const attestation = `{"mode":"classic","message":"This instance is not running in a TEE"}`

func (a *API) serveAttestation(w http.ResponseWriter, _ *http.Request) error {
	send(w, http.StatusOK, "application/json", []byte(attestation))
	return nil
}
