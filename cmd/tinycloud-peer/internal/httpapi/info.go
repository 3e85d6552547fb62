package httpapi

import (
	"fmt"
	"net/http"
	"net/url"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// protocolVersion is what clients compare before they sign in.
const protocolVersion = 1

func (a *API) describe() []byte {
	b, err := encodeJSON(struct {
		Protocol int      `json:"protocol"`
		Version  string   `json:"version"`
		Features []string `json:"features"`
		NodeID   string   `json:"nodeId"`
		InTEE    bool     `json:"inTEE"`
		QuotaURL string   `json:"quota_url,omitempty"`
	}{protocolVersion, a.o.Version, a.o.Features, a.o.NodeID, false, a.o.QuotaURL})
	if err != nil {
		panic("httpapi: " + err.Error()) // strings always encode
	}
	return b
}

func (a *API) serveInfo(w http.ResponseWriter, _ *http.Request) error {
	send(w, http.StatusOK, "application/json", a.info)
	return nil
}

// serveHealth tells whether the database answers, and the place of the values; of a Space that is named also whether it
// is served here: hosted by a delegation that is in force, and with its history. A proxy goes by that.
func (a *API) serveHealth(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	space, asked, err := healthOf(r)
	if err != nil {
		return err
	}
	err = a.o.Store.Ping(ctx)
	if err == nil && a.o.Health != nil {
		err = a.o.Health(ctx)
	}
	switch {
	case err != nil:
		a.log.WarnContext(ctx, "not healthy", "error", err)
	case asked:
		if err = a.o.Store.Serves(ctx, space); err != nil {
			a.log.DebugContext(ctx, "space not served", "space", space, "error", err)
		}
	}
	if err != nil {
		w.Header().Set("Retry-After", "1")
		send(w, http.StatusServiceUnavailable, "", nil)
	}
	return nil
}

// healthOf is the Space that is asked about, if one is.
func healthOf(r *http.Request) (space tinycloud.SpaceID, asked bool, err error) {
	values, asked := r.URL.Query()["space"]
	if !asked {
		return space, false, nil
	}
	if space, err = tinycloud.ParseSpaceID(values[0]); err != nil {
		return space, true, fmt.Errorf("%v: %w", err, badOption("Invalid space ID"))
	}
	return space, true, nil
}

// serveHostKey answers with the DID of this node's key of a Space. It needs no state: any well-formed Space id
// has one.
func (a *API) serveHostKey(w http.ResponseWriter, segment string) error {
	text, err := url.PathUnescape(segment)
	if err == nil {
		var space tinycloud.SpaceID
		if space, err = tinycloud.ParseSpaceID(text); err == nil {
			sendText(w, http.StatusOK, a.o.HostDID(space))
			return nil
		}
	}
	return fmt.Errorf("%v: %w", err, tinycloud.Refuse(tinycloud.ErrInvalid, "Invalid space ID"))
}
