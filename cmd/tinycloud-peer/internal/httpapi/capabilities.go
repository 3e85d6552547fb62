package httpapi

import (
	"encoding/json"
	"strconv"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// capabilityParams are the parameters of capabilities/read, which stand in the signed facts.
type capabilityParams struct {
	isChain bool
	chain   string // CID of the delegation whose chain is asked for
	filter  capstore.Filter
}

// paramsOf takes the first fact whose parameters parse; others are as good as none (docs/protocol.md,
// "Capabilities").
func paramsOf(facts []json.RawMessage) capabilityParams {
	for _, fact := range facts {
		var members map[string]json.RawMessage
		if json.Unmarshal(fact, &members) != nil {
			continue
		}
		if raw, ok := members["capabilitiesReadParams"]; ok {
			if p, ok := parseParams(raw); ok {
				return p
			}
		}
	}
	return capabilityParams{}
}

// parseParams matches member names exactly, which encoding/json's structs do not.
func parseParams(raw json.RawMessage) (p capabilityParams, ok bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return p, false
	}
	var kind string
	if !member(members, "type", &kind) {
		return p, false
	}
	switch kind {
	case "list":
		return p, parseFilters(members["filters"], &p.filter)
	case "chain":
		p.isChain = true
		return p, member(members, "delegation_cid", &p.chain)
	}
	return p, false
}

func parseFilters(raw json.RawMessage, f *capstore.Filter) bool {
	if raw == nil {
		return true
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return false
	}
	return optional(members, "direction", &f.Direction) && optional(members, "path", &f.Path) &&
		optional(members, "actions", &f.Actions)
}

// member reads a member that must be there and not be null.
func member(members map[string]json.RawMessage, name string, out *string) bool {
	raw, ok := members[name]
	return ok && string(raw) != "null" && json.Unmarshal(raw, out) == nil
}

func optional[T string | []string](members map[string]json.RawMessage, name string, out *T) bool {
	raw, ok := members[name]
	return !ok || json.Unmarshal(raw, out) == nil
}

type capabilityJSON struct {
	Resource string                     `json:"resource"`
	Ability  string                     `json:"ability"`
	Caveats  map[string]json.RawMessage `json:"caveats"`
}

type delegationJSON struct {
	Capabilities []capabilityJSON `json:"capabilities"`
	Delegator    string           `json:"delegator"`
	Delegate     string           `json:"delegate"`
	Parents      [][]int          `json:"parents"` // each the bytes of a CID
	Raw          string           `json:"raw"`     // as the Authorization header carries it
}

// capabilities answers with the delegations of a Space, or with one delegation and its parents up to the root.
func (a *API) capabilities(c *call, o op) error {
	ctx, params := c.r.Context(), paramsOf(c.token.Facts)
	if params.isChain {
		id, err := tinycloud.ParseCID(params.chain)
		if err != nil {
			return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Invalid delegation CID: %s", params.chain)
		}
		chain, err := a.o.Store.Chain(ctx, o.space, id)
		if err != nil {
			return err
		}
		out := make([]delegationJSON, len(chain))
		for i, l := range chain {
			out[i] = listedJSON(l)
		}
		return sendJSON(c.w, out)
	}
	listed, err := a.o.Store.Capabilities(ctx, c.token, o.space, params.filter)
	if err != nil {
		return err
	}
	out := make(map[string]delegationJSON, len(listed))
	for _, l := range listed {
		out[l.Token.ID.EventID()] = listedJSON(l)
	}
	return sendJSON(c.w, out)
}

func listedJSON(l capstore.Listed) delegationJSON {
	d := delegationJSON{
		Capabilities: []capabilityJSON{}, Parents: [][]int{},
		Delegator: string(l.Token.Signer), Delegate: string(l.Token.Audience), Raw: l.Token.Header(),
	}
	for _, c := range l.Token.Caps {
		d.Capabilities = append(d.Capabilities, capabilityJSON{c.Resource.String(), c.Ability, caveats(c.Caveats)})
	}
	for _, p := range l.Parents {
		var ints []int
		for _, b := range p.CID(tinycloud.RawCodec).Bytes() {
			ints = append(ints, int(b))
		}
		d.Parents = append(d.Parents, ints)
	}
	return d
}

// caveats numbers the caveats of a capability; none is an empty object.
func caveats(list json.RawMessage) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	var items []json.RawMessage
	if list == nil || json.Unmarshal(list, &items) != nil {
		return out
	}
	for i, item := range items {
		out[strconv.Itoa(i)] = item
	}
	return out
}
