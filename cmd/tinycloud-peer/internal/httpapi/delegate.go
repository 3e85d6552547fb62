package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// authorization returns the token of a request. There is no scheme before it.
func authorization(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 || values[0] == "" {
		return "", fmt.Errorf("no Authorization header, which has to be a delegation or an invocation: %w", tinycloud.ErrUndecodable)
	}
	return values[0], nil
}

// maxDelegations is how many delegations are read, judged and stored at once: what they ask for takes many times as much
// memory as their text, and more than these the writer does not take up faster.
const maxDelegations = 16

// delegationPatience is how long a delegation waits for its turn.
const delegationPatience = 30 * time.Second

// serveDelegate answers with the delegation's CID and with the Spaces it names, as texts: those it was added to
// now and those that are not hosted here.
func (a *API) serveDelegate(w http.ResponseWriter, r *http.Request) error {
	defer a.metrics.authorized("delegate", time.Now())
	if err := a.budgets.delegation(r); err != nil {
		return err
	}
	header, err := authorization(r)
	if err != nil {
		return err
	}
	leave, err := enter(r.Context(), a.delegations, delegationPatience, "Too many delegations at once; retry the request")
	if err != nil {
		return err
	}
	defer leave()
	token, err := capstore.ParseDelegation(header)
	if err != nil {
		return err
	}
	if err := a.budgets.creation(r, a.o.Store, token); err != nil {
		return err
	}
	done, err := a.o.Store.Delegate(r.Context(), token)
	if err != nil {
		return err
	}
	return sendJSON(w, struct {
		CID       string   `json:"cid"`
		Activated []string `json:"activated"`
		Skipped   []string `json:"skipped"`
	}{done.CID, texts(done.Activated), texts(done.Skipped)})
}

// texts never returns nil: clients index the arrays.
func texts(spaces []tinycloud.SpaceID) []string {
	out := make([]string, len(spaces))
	for i, s := range spaces {
		out[i] = s.String()
	}
	return out
}

// serveRevoke revokes a delegation. Whatever speaks against a decoded revocation is a 403 (docs/protocol.md,
// "Revocations").
func (a *API) serveRevoke(w http.ResponseWriter, r *http.Request) error {
	if err := a.budgets.delegation(r); err != nil {
		return err
	}
	header, err := authorization(r)
	if err != nil {
		return err
	}
	token, err := capstore.ParseRevocation(header)
	if err != nil {
		return err
	}
	if err := a.o.Store.Revoke(r.Context(), token); err != nil {
		return forbidden(err)
	}
	return sendJSON(w, struct {
		Revoked bool   `json:"revoked"`
		CID     string `json:"cid"`
	}{true, token.TargetText})
}

func forbidden(err error) error {
	var refusal *tinycloud.Refusal
	if errors.As(err, &refusal) && (errors.Is(err, tinycloud.ErrUnauthorized) || errors.Is(err, tinycloud.ErrForged)) {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "%s", refusal.Text)
	}
	return err
}
