package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

const (
	maxAdminBody = 64 << 10
	maxJoinAddrs = 32

	adminFailures = 10 // wrong secrets of a client at once
	adminRetries  = 6  // more of them a minute
	adminDelay    = 500 * time.Millisecond
)

// authenticated asks for the admin secret. Hashes are compared, so that time tells nothing of its length.
func (n *Node) authenticated(h http.Handler) http.Handler {
	want, failures := sha256.Sum256(n.cfg.AdminSecret.Bytes()), callers.NewBudget(adminRetries, adminFailures)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.cfg.AdminSecret.IsZero() {
			sendJSON(w, http.StatusServiceUnavailable, adminError{"admin.secret is not set: /admin is closed over HTTP"})
			return
		}
		// Before it is compared, so that who guesses learns nothing sooner; the operator, who may have the same address, is
		// slowed down but let in.
		if !failures.Left(r.RemoteAddr) && !wait.For(r.Context(), adminDelay) {
			return // the client has gone
		}
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(token))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !ok {
			if ok {
				failures.Allow(r.RemoteAddr)
			}
			w.Header().Set("WWW-Authenticate", "Bearer")
			sendJSON(w, http.StatusUnauthorized, adminError{"wrong admin secret"})
			return
		}
		h.ServeHTTP(w, r)
	})
}

type adminError struct {
	Error string `json:"error"`
}

// answer turns a function into a handler: a status with a body, or an error by its class.
func answer(f func(*http.Request) (int, any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
		status, body, err := f(r)
		if err != nil {
			status, body = adminStatus(err), adminError{tinycloud.Plain(err)}
		}
		sendJSON(w, status, body)
	}
}

func adminStatus(err error) int {
	switch {
	case errors.Is(err, tinycloud.ErrInvalid), errors.Is(err, p2p.ErrInvalid), errors.Is(err, tinycloud.ErrUnsupported):
		return http.StatusBadRequest
	case errors.Is(err, tinycloud.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, tinycloud.ErrUnavailable), errors.Is(err, p2p.ErrUnreachable):
		return http.StatusServiceUnavailable
	case errors.Is(err, tinycloud.ErrUnauthorized), errors.Is(err, tinycloud.ErrForbidden), errors.Is(err, tinycloud.ErrForged):
		return http.StatusForbidden
	case errors.Is(err, tinycloud.ErrFull):
		return http.StatusInsufficientStorage
	case errors.Is(err, tinycloud.ErrConflict):
		return http.StatusConflict
	case errors.Is(err, tinycloud.ErrBusy):
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

func sendJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client may have gone
}

func (n *Node) adminNode(r *http.Request) (int, any, error) {
	v := Info{
		NodeID: didOf(n.keys), PeerID: n.frontID(), Addrs: p2p.AddrTexts(n.frontAddrs()), Version: n.o.Version,
		URL: n.URL(), Started: n.began.UTC().Truncate(time.Millisecond), Trouble: n.trouble(r.Context()), Reachability: "unknown",
		Spaces: len(n.store.Spaces()), Backup: stamp(n.lastBackup()), SampleSeconds: sampleEvery.Seconds(),
	}
	if front := n.front.Load(); front != nil {
		v.Replicates, v.Shards = true, n.spaces.shardCount()
		if !front.Behind() {
			v.Connections, v.Reachability = len(front.Host().Network().Peers()), front.Reachability()
		}
	}
	return http.StatusOK, v, nil
}

const (
	spacesAtOnce = 1 << 20 // all of them, unless fewer are asked for
	spacesMost   = 1 << 20
)

// adminSpaces lists Spaces in the order of their ids: ?after= an id, ?limit=, ?find= a part of the id, ?brief=1 without
// what takes as long as a Space has keys.
func (n *Node) adminSpaces(r *http.Request) (int, any, error) {
	q := r.URL.Query()
	limit, err := limitOf(r, spacesAtOnce, spacesMost)
	if err != nil {
		return 0, nil, err
	}
	skip := func(space tinycloud.SpaceID) bool {
		return space.String() <= q.Get("after") || !strings.Contains(strings.ToLower(space.String()), strings.ToLower(q.Get("find")))
	}
	look := n.view
	if q.Get("brief") == "1" {
		look = n.brief
	}
	imported := n.store.Imported()
	views := []SpaceView{}
	for _, space := range sorted(append(n.store.Spaces(), imported...)) {
		switch {
		case len(views) == limit:
			return http.StatusOK, views, nil
		case skip(space):
		case slices.Contains(imported, space):
			views = append(views, n.importedView(space))
		default:
			v, err := look(r.Context(), space)
			if err != nil {
				return 0, nil, err
			}
			views = append(views, v)
		}
	}
	return http.StatusOK, views, nil
}

func pathSpace(r *http.Request) (tinycloud.SpaceID, error) {
	return tinycloud.ParseSpaceID(r.PathValue("space"))
}

func (n *Node) adminSpace(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	look := n.view
	if r.URL.Query().Get("brief") == "1" {
		look = n.brief
	}
	v, err := n.detail(r.Context(), space, look, r.URL.Query().Get("hash") == "1")
	return http.StatusOK, v, err
}

// JoinRequest is the body of POST /admin/spaces/{space}/join.
type JoinRequest struct {
	Addrs []string `json:"addrs"` // of Space peers, or of nodes that are asked for theirs
	Empty bool     `json:"empty"` // the others have no history to wait for
}

// Hosting is what the owner of a Space has to sign for this node to host it.
type Hosting struct {
	DID  string `json:"did"`
	SIWE string `json:"siwe"` // the text for the wallet's personal_sign; "" when the owner is no Ethereum account
	// Remembered says that the join takes effect once the owner has signed.
	Remembered bool `json:"remembered"`
}

// adminJoin remembers whom to join; the replica does the rest, for ever.
func (n *Node) adminJoin(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	var q JoinRequest
	if err := decodeBody(r, &q); err != nil {
		return 0, nil, err
	}
	if err := n.checkAddrs(space, q); err != nil {
		return 0, nil, err
	}
	if err := n.admittedTargets(q); err != nil {
		return 0, nil, err
	}
	if _, err := n.store.HostChain(r.Context(), space); errors.Is(err, tinycloud.ErrNotFound) || !n.store.Hosted(space) {
		return n.remember(r, space, q)
	} else if err != nil {
		return 0, nil, err
	}
	// A client that hangs up gets what it asked for all the same.
	if err := n.join(context.WithoutCancel(r.Context()), space, q); err != nil {
		return 0, nil, err
	}
	v, err := n.view(r.Context(), space)
	return http.StatusAccepted, v, err
}

// remember keeps a join until this node is a host of the Space. One that is but whose delegation is over keeps it too.
func (n *Node) remember(r *http.Request, space tinycloud.SpaceID, q JoinRequest) (int, any, error) {
	h, err := n.hosting(space)
	if err != nil {
		return 0, nil, err
	}
	ctx := context.WithoutCancel(r.Context())
	err = n.store.RememberJoin(ctx, space, q.Addrs, q.Empty)
	if errors.Is(err, tinycloud.ErrConflict) {
		err = n.store.AddFound(ctx, space, q.Addrs)
	}
	h.Remembered = err == nil
	if errors.Is(err, tinycloud.ErrTooLarge) {
		err = nil // it is said so
	}
	return http.StatusConflict, h, err
}

func (n *Node) join(ctx context.Context, space tinycloud.SpaceID, q JoinRequest) error {
	if err := n.store.AddJoin(ctx, space, q.Addrs, q.Empty); err != nil {
		return err
	}
	n.spaces.joined(ctx, space)
	n.spaces.asker.about(space)
	return nil
}

func (n *Node) checkAddrs(space tinycloud.SpaceID, q JoinRequest) error {
	if len(q.Addrs) > maxJoinAddrs || len(q.Addrs) == 0 && !q.Empty {
		return fmt.Errorf("addrs: %d of them, expected 1 to %d: %w", len(q.Addrs), maxJoinAddrs, tinycloud.ErrInvalid)
	}
	for _, text := range q.Addrs {
		target, err := parseTarget(text)
		if err != nil {
			return err
		}
		if target.space == n.spacePeer(space) || target.space == "" && target.front.ID == n.entranceID(space) {
			return fmt.Errorf("%s is this node: %w", text, tinycloud.ErrInvalid)
		}
	}
	return nil
}

// Unhosting is what the owner of a Space has to sign to remove a host.
type Unhosting struct {
	SIWE string `json:"siwe"` // the text for the wallet's personal_sign
}

func (n *Node) adminRemoval(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	if !n.store.Hosted(space) {
		return 0, nil, fmt.Errorf("%s is not hosted here: %w", space, tinycloud.ErrNotFound)
	}
	text, err := n.store.UnhostMessage(r.Context(), space, tinycloud.Principal(r.PathValue("did")), r.URL.Query().Get("domain"), rand.Text())
	return http.StatusOK, Unhosting{SIWE: text}, err
}

// hosting returns what the owner has to sign.
func (n *Node) hosting(space tinycloud.SpaceID) (Hosting, error) {
	h := Hosting{DID: n.hostDID(space)}
	text, err := capstore.HostMessage(space, tinycloud.Principal(h.DID), rand.Text(), time.Now())
	if err != nil && !errors.Is(err, tinycloud.ErrUnsupported) {
		return Hosting{}, err
	}
	h.SIWE = text
	return h, nil
}
