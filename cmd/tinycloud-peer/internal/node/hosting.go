package node

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// HostTextView is what the owner of a Space signs to make this node its host.
type HostTextView struct {
	Space tinycloud.SpaceID `json:"space"` // as it is written
	DID   string            `json:"did"`   // of this node in it
	SIWE  string            `json:"siwe"`  // the text for the wallet's personal_sign
}

// Signed is a text with its owner's signature.
type Signed struct {
	SIWE      string `json:"siwe"`
	Signature string `json:"signature"` // 0x and 130 hex digits
}

// adminHostText makes the text: ?domain=, that wallets compare with the page they show, and ?seconds=, how long it lasts.
func (n *Node) adminHostText(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	terms := capstore.HostTerms{Domain: r.URL.Query().Get("domain")}
	if text := r.URL.Query().Get("seconds"); text != "" {
		const most = 100 * 365 * 24 * 60 * 60
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds < 1 || seconds > most {
			return 0, nil, fmt.Errorf("seconds: %q, expected 1 to %d: %w", text, most, tinycloud.ErrInvalid)
		}
		terms.Expires = time.Now().Add(time.Duration(seconds) * time.Second)
	}
	did := n.hostDID(space)
	text, err := terms.Message(space, tinycloud.Principal(did), rand.Text(), time.Now())
	return http.StatusOK, HostTextView{space, did, text}, err
}

// adminSigned hands a text that was signed to the API, as an app or the command line does: it judges it.
func (n *Node) adminSigned(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
		var q Signed
		err := decodeBody(r, &q)
		var header string
		if err == nil {
			header, err = capstore.SignedByOwner(q.SIWE, q.Signature)
		}
		if err != nil {
			sendJSON(w, adminStatus(err), adminError{tinycloud.Plain(err)})
			return
		}
		posted := r.Clone(r.Context())
		posted.Method, posted.Body, posted.ContentLength = http.MethodPost, http.NoBody, 0
		posted.URL.Path, posted.URL.RawPath, posted.URL.RawQuery = path, "", ""
		posted.Header = http.Header{"Authorization": {header}}
		n.api.Handler().ServeHTTP(w, posted)
		n.alerts.forget()
	}
}
