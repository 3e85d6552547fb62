package hooks

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

const maxSecret = 1024 // bytes

// told are the services that webhooks tell of.
var told = map[string]bool{"kv": true, "sql": true}

// Registration is a webhook that somebody wants.
type Registration struct {
	Scope       Scope
	CallbackURL string
	Secret      string
}

// Record is a webhook as its subscribers see it.
type Record struct {
	ID            string   `json:"id"`
	SubscriberDID string   `json:"subscriberDid"`
	Space         string   `json:"space"`
	Service       string   `json:"service"`
	PathPrefix    *string  `json:"pathPrefix"`
	Abilities     []string `json:"abilities"`
	CallbackURL   string   `json:"callbackUrl"`
	SecretKeyID   string   `json:"secretKeyId"`
	Active        bool     `json:"active"`
	CreatedAt     string   `json:"createdAt"`
}

// ParseRegistration reads the body of a registration. Refusals are of class [tinycloud.ErrInvalid], and of
// [tinycloud.ErrUnsupported] for services that would never call.
func ParseRegistration(body []byte) (q Registration, err error) {
	var in struct {
		Space, Service      string
		PathPrefix          *string
		Abilities           []string
		CallbackURL, Secret string
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return q, refuse("Invalid hook request")
	}
	prefix := ""
	if in.PathPrefix != nil {
		prefix = *in.PathPrefix
	}
	if q.Scope, err = NewScope(in.Space, in.Service, prefix, in.Abilities); err != nil {
		return q, err
	}
	if !told[in.Service] {
		return q, tinycloud.Refuse(tinycloud.ErrUnsupported, "Webhooks of %s are not supported by this node", in.Service)
	}
	if _, err := parseCallback(in.CallbackURL); err != nil {
		return q, err
	}
	switch {
	case in.Secret == "":
		return q, refuse("secret is required")
	case len(in.Secret) > maxSecret:
		return q, refuse("secret is too long")
	}
	q.CallbackURL, q.Secret = in.CallbackURL, in.Secret
	return q, nil
}

// webhook is a webhook at work.
type webhook struct {
	registered
	scope  Scope
	stored int64 // epoch of the cursor in the database; of the goroutine that collects, as is Cursor
}

func scopeOf(w registered) Scope {
	return Scope{Space: w.Space, Service: w.Service, Prefix: w.Prefix, Abilities: w.Abilities}
}

func record(w registered) Record {
	r := Record{
		ID: w.ID, SubscriberDID: string(w.Subscriber), Space: w.Space.String(), Service: w.Service, Abilities: w.Abilities,
		CallbackURL: w.URL, SecretKeyID: "primary", Active: w.Active, CreatedAt: formatTime(w.Created),
	}
	if w.Prefix != "" {
		r.PathPrefix = &w.Prefix
	}
	if r.Abilities == nil {
		r.Abilities = []string{}
	}
	return r
}

// Authorise reports by a refusal of class [tinycloud.ErrForbidden] when an admitted invocation does not
// cover a registration.
func (q Registration) Authorise(t *capstore.Token) error {
	return permitted(t, AbilityRegister, q.Scope.Space, q.Scope.path())
}

// Register stores a webhook for an admitted invocation that covers it. It is told of changes from now on.
func (h *Hooks) Register(ctx context.Context, t *capstore.Token, q Registration) (Record, error) {
	if err := q.Authorise(t); err != nil {
		return Record{}, err
	}
	if err := h.checkCallback(ctx, q.CallbackURL); err != nil {
		return Record{}, err
	}
	if _, err := h.o.Store.Standing(ctx, t.Proofs); err != nil {
		return Record{}, err
	}
	if err := h.o.Store.Listen(ctx, q.Scope.Space, q.Scope.Service, true); err != nil {
		return Record{}, err
	}
	defer h.o.Store.Unlisten(q.Scope.Space, q.Scope.Service, true)
	from, err := h.o.Store.LatestChange(ctx)
	if err != nil {
		return Record{}, err
	}
	w := registered{
		ID: strings.ToLower(rand.Text()), Space: q.Scope.Space, Subscriber: t.Signer, Service: q.Scope.Service, Prefix: q.Scope.Prefix,
		Abilities: q.Scope.Abilities, URL: q.CallbackURL, Proofs: t.Proofs, Active: true, Created: h.o.Now(), Cursor: from,
	}
	if w.Secret, err = h.encrypt(w.ID, q.Secret); err != nil {
		return Record{}, err
	}
	if err := h.rows().add(ctx, w, h.o.Webhooks); err != nil {
		return Record{}, err
	}
	return record(w), h.add(ctx, w)
}

// List returns the webhooks of a Space for an admitted invocation: of a service, "" for all of them, and
// below a prefix.
func (h *Hooks) List(ctx context.Context, t *capstore.Token, space tinycloud.SpaceID, service, prefix string) ([]Record, error) {
	prefix = strings.Trim(prefix, "/")
	path := "webhooks"
	if service != "" {
		path = Scope{Service: service, Prefix: prefix}.path()
	}
	if err := permitted(t, AbilityList, space, path); err != nil {
		return nil, err
	}
	all, err := h.rows().all(ctx)
	if err != nil {
		return nil, err
	}
	out := []Record{}
	for _, w := range all {
		if w.Space == space && (service == "" || w.Service == service) && within(w.Prefix, prefix) {
			out = append(out, record(w))
		}
	}
	return out, nil
}

// Unregister removes a webhook for an admitted invocation. One that is unknown, or of a Space that the
// invocation does not name, is a refusal of class [tinycloud.ErrNotFound].
func (h *Hooks) Unregister(ctx context.Context, t *capstore.Token, id string) error {
	all, err := h.rows().all(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(w registered) bool { return w.ID == id && slices.Contains(t.Spaces(), w.Space) })
	if i < 0 {
		return tinycloud.Refuse(tinycloud.ErrNotFound, "webhook not found")
	}
	if err := permitted(t, AbilityUnregister, all[i].Space, "webhooks/"+id, scopeOf(all[i]).path()); err != nil {
		return err
	}
	if err := h.rows().remove(ctx, id); err != nil {
		return err
	}
	h.remove(id)
	return nil
}

// add puts a webhook to work, once.
func (h *Hooks) add(ctx context.Context, w registered) error {
	if err := h.o.Store.Listen(ctx, w.Space, w.Service, true); err != nil {
		return err
	}
	h.mu.Lock()
	if h.webhooks[w.ID] != nil {
		h.mu.Unlock()
		h.o.Store.Unlisten(w.Space, w.Service, true)
		return nil
	}
	h.webhooks[w.ID] = &webhook{registered: w, scope: scopeOf(w), stored: w.Cursor.Epoch}
	h.mu.Unlock()
	h.bus.watch(w.Space, 1)
	return nil
}

func (h *Hooks) remove(id string) {
	h.mu.Lock()
	w, ok := h.webhooks[id]
	delete(h.webhooks, id)
	h.mu.Unlock()
	if ok {
		h.o.Store.Unlisten(w.Space, w.Service, true)
		h.bus.watch(w.Space, -1)
		h.kicked(id) // the dispatcher forgets it
	}
}

// load takes up the webhooks that are stored: of the node's last life, or of other processes. Those that are
// not stored any more it forgets.
func (h *Hooks) load(ctx context.Context) error {
	all, err := h.rows().all(ctx)
	if err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	active := map[string]bool{}
	for _, w := range all {
		if w.Active {
			active[w.ID] = true
			if err := h.add(ctx, w); err != nil {
				return fmt.Errorf("webhooks: %w", err)
			}
		}
	}
	if h.o.Lead == nil {
		return nil // nobody else removes any
	}
	for _, w := range h.current() {
		if !active[w.ID] {
			h.remove(w.ID)
		}
	}
	return nil
}

func (h *Hooks) cipher() (cipher.AEAD, error) {
	block, err := aes.NewCipher(h.o.SecretKey[:])
	if err != nil {
		return nil, fmt.Errorf("webhook secret: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// encrypt binds the secret to its webhook.
func (h *Hooks) encrypt(id, secret string) ([]byte, error) {
	aead, err := h.cipher()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, []byte(secret), []byte(id)), nil
}

var errSecret = errors.New("webhook secret does not decrypt: keys.secret has changed")

func (h *Hooks) decrypt(w *webhook) ([]byte, error) {
	aead, err := h.cipher()
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, nil, w.Secret, []byte(w.ID))
	if err != nil {
		return nil, errSecret
	}
	return secret, nil
}
