package node

import (
	"fmt"
	"net/http"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// route is a path of the admin API, and what is told of it.
type route struct {
	pattern string   // method and path
	about   string   // a sentence
	query   []string // parameters
	body    any      // of requests: a value of its type; nil: none
	answer  any      // likewise; nil: no JSON
	handle  http.HandlerFunc
}

// routes are those that whoever is the operator may ask for, from anywhere. Others are for the socket alone, or not for the
// page: localHandler and operatorHandler.
func (n *Node) routes() []route {
	return append(append(n.nodeRoutes(), n.spaceRoutes()...), n.pairRoutes()...)
}

func (n *Node) nodeRoutes() []route {
	return []route{
		{"GET /admin/node", "How the node is", nil, nil, Info{}, answer(n.adminNode)},
		{"GET /admin/alerts", "What the operator should know", nil, nil, []AlertView{}, answer(n.adminAlerts)},
		{"GET /admin/events", "The end of the log, the newest first", []string{"before", "limit", "space", "level"}, nil, EventPage{}, answer(n.adminEvents)},
		{"GET /admin/history", "What the metrics said in the last half hour", nil, nil, HistoryView{}, answer(n.adminHistory)},
		{"GET /admin/live", "What changes, as server-sent events: change, event, sample", nil, nil, nil, n.adminLive},
		{"GET /admin/openapi.json", "This description", nil, nil, nil, n.adminOpenAPI},
		{"GET /admin/quota", "The limits that were set, and the usual one", nil, nil, Quotas{}, answer(n.adminQuotas)},
		{"GET /admin/quota/{space}", "How much a Space may hold", nil, nil, QuotaView{}, answer(n.adminQuota)},
		{"PUT /admin/quota/{space}", "Sets how much a Space may hold", nil, QuotaRequest{}, QuotaView{}, answer(n.adminSetQuota)},
		{"DELETE /admin/quota/{space}", "Forgets the limit that was set for a Space", nil, nil, QuotaView{}, answer(n.adminClearQuota)},
		{"GET /admin/usage", "How much the Spaces hold", nil, nil, Usage{}, answer(n.adminUsage)},
	}
}

func (n *Node) spaceRoutes() []route {
	return []route{
		{"GET /admin/spaces", "The Spaces in the order of their ids", []string{"after", "limit", "find", "brief"}, nil, []SpaceView{}, answer(n.adminSpaces)},
		{"GET /admin/spaces/{space}", "A Space with its databases", []string{"hash", "brief"}, nil, SpaceDetail{}, answer(n.adminSpace)},
		{"POST /admin/spaces/{space}/join", "Joins a Space through other hosts: 202, or 409 with what its owner has to sign first", nil, JoinRequest{}, SpaceView{}, answer(n.adminJoin)},
		{"DELETE /admin/spaces/{space}/joins/{addr}", "Forgets an address that a Space is joined through", nil, nil, JoinRequest{}, answer(n.adminForget)},
		{"GET /admin/spaces/{space}/conflicts", "Writes that lost against others which did not know of them", []string{"after", "limit"}, nil, ConflictPage{}, answer(n.adminConflicts)},
		{"GET /admin/spaces/{space}/conflicts/{value}", "The bytes of a conflict's value", nil, nil, nil, n.conflictValue},
		{"GET /admin/spaces/{space}/failed", "SQL writes that were acknowledged and did nothing after all", []string{"database", "limit", "after", "at", "epoch"}, nil, []FailedView{}, answer(n.adminFailed)},
		{"GET /admin/spaces/{space}/policy", "Which values are fetched of a Space", nil, nil, PolicyView{}, answer(n.adminPolicy)},
		{"PUT /admin/spaces/{space}/policy", "Sets which values are fetched; null: as the node does", nil, PolicyRequest{}, PolicyView{}, answer(n.adminSetPolicy)},
		{"GET /admin/spaces/{space}/hosting", "What the owner signs to make this node a host", []string{"domain", "seconds"}, nil, HostTextView{}, answer(n.adminHostText)},
		{"POST /admin/spaces/{space}/hosting", "Makes this node a host by what the owner signed; the answer is that of POST /delegate", nil, Signed{}, nil, n.adminSigned("/delegate")},
		{"GET /admin/spaces/{space}/hosts/{did}/removal", "What the owner signs to remove a host", []string{"domain"}, nil, Unhosting{}, answer(n.adminRemoval)},
		{"POST /admin/spaces/{space}/hosts/{did}/removal", "Removes a host by what the owner signed; the answer is that of POST /revoke", nil, Signed{}, nil, n.adminSigned("/revoke")},
	}
}

func (n *Node) pairRoutes() []route {
	return []route{
		{"GET /admin/nodes", "The nodes that are asked about every Space", nil, nil, []NodeView{}, answer(n.adminNodes)},
		{"POST /admin/nodes", "Pairs with a node, by its address or an invite; 202 for one out of reach", nil, PairRequest{}, NodeView{}, answer(n.adminPair)},
		{"DELETE /admin/nodes/{peer}", "Ends a pairing", nil, nil, NodeView{}, answer(n.adminUnpair)},
		{"GET /admin/aliases", "The operator's names of nodes and hosts", nil, nil, []AliasView{}, answer(n.adminAliases)},
		{"PUT /admin/aliases/{name}", "Names a node or a host, by its peer id or DID", nil, AliasRequest{}, AliasView{}, answer(n.adminSetAlias)},
		{"DELETE /admin/aliases/{name}", "Forgets a name", nil, nil, AliasView{}, answer(n.adminRemoveAlias)},
		{"GET /admin/invites", "The invites that were made, without their texts", nil, nil, []InviteView{}, answer(n.adminInvites)},
		{"POST /admin/invites", "Makes an invite for one node", nil, InviteRequest{}, InviteView{}, answer(n.adminInvite)},
		{"GET /admin/networks", "The encryption networks that are known here", nil, nil, []NetworkView{}, answer(n.adminNetworks)},
		{"GET /admin/networks/{network}", "An encryption network", nil, nil, NetworkView{}, answer(n.adminNetwork)},
		{"PUT /admin/networks/{network}/nodes/{node}", "Has the keys of a network's owner go to a node", nil, nil, NetworkView{}, answer(n.adminShare(true))},
		{"DELETE /admin/networks/{network}/nodes/{node}", "Has them go there no more", nil, nil, NetworkView{}, answer(n.adminShare(false))},
		{"GET /admin/networks/{network}/rotation", "What the owner signs for a new version of the key", nil, nil, Rotation{}, answer(n.adminRotation)},
		{"POST /admin/networks/{network}/rotation", "Makes a new version of the key by what the owner signed", nil, Rotation{}, NetworkView{}, answer(n.adminRotate)},
	}
}

// adminHandler answers /admin/…. Whoever reaches it is the operator.
func (n *Node) adminHandler() http.Handler {
	mux := http.NewServeMux()
	for _, x := range n.routes() {
		mux.HandleFunc(x.pattern, x.handle)
	}
	mux.HandleFunc("/", answer(func(*http.Request) (int, any, error) {
		return 0, nil, fmt.Errorf("no such path: %w", tinycloud.ErrNotFound)
	}))
	return mux
}
