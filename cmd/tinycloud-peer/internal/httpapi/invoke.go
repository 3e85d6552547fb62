package httpapi

import (
	"net/http"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// action is what an operation of an invocation does.
type action uint8

const (
	actionPut action = 1 + iota
	actionDelete
	actionGet
	actionMetadata
	actionList
	actionCapabilities
	actionService
)

// op is one operation of an invocation: a capability that has an effect here.
type op struct {
	action  action
	space   tinycloud.SpaceID
	key     string       // the path, never percent-decoded; of a list the prefix
	ability string       // as signed
	by      service.HTTP // of actionService
	whole   bool         // of actionService: it is all that the invocation asks for, and burns the token itself
}

// plan is what an invocation asks for.
type plan struct {
	ops       []op // in the order in which they are answered
	multipart bool // the body is multipart/form-data
}

func (p plan) count(actions ...action) (n int) {
	for _, o := range p.ops {
		for _, a := range actions {
			if o.action == a {
				n++
			}
		}
	}
	return n
}

// single reports whether the one operation is any of the actions.
func (p plan) single(actions ...action) bool { return len(p.ops) == 1 && p.count(actions...) == 1 }

const mixedText = "Multiple invocation outcomes require a homogeneous KV get or metadata batch"

// planOf lists an admitted invocation's operations. What is authorised but means nothing here, such as a key-value
// ability on the whole service, is no operation (docs/protocol.md, "KV").
func (a *API) planOf(t *capstore.Token, multipart bool) (plan, error) {
	p := plan{multipart: multipart}
	caps := t.Requested()
	for _, c := range caps {
		if by, ok := a.beside[serviceOf(c)].(service.Whole); ok && by.Takes(c.Ability) {
			path, _ := c.Resource.Path()
			p.ops = []op{{action: actionService, space: c.Resource.Space(), key: path, ability: c.Ability, by: by, whole: true}}
			return p, nil
		}
	}
	if multipart {
		caps = t.Caps // puts are recorded in the order of their resources, as the reference does
	}
	for _, c := range caps {
		path, has := c.Resource.Path()
		o := op{space: c.Resource.Space(), key: path, ability: c.Ability}
		switch name := serviceOf(c); {
		case a.beside[name] != nil:
			o.action, o.by = actionService, a.beside[name]
		case name == "duckdb":
			return plan{}, tinycloud.Refuse(tinycloud.ErrUnsupported, "DuckDB support is not enabled on this node")
		case name == "sql":
			return plan{}, tinycloud.Refuse(tinycloud.ErrUnsupported, "SQL support is not enabled on this node")
		case name == "encryption":
			return plan{}, tinycloud.Refuse(tinycloud.ErrUnsupported, "Encryption support is not enabled on this node")
		case name == "kv" && has:
			o.action = keyAction(c.Ability)
		case name == "capabilities" && path == "all" && c.Ability == "tinycloud.capabilities/read":
			o.action = actionCapabilities
		}
		if o.action != 0 {
			p.ops = append(p.ops, o)
		}
	}
	return p, p.check(len(t.Caps))
}

// serviceOf returns the service that a capability belongs to. Encryption networks are no resources of a
// Space.
func serviceOf(c capstore.Capability) string {
	if c.Ability == "tinycloud.encryption/decrypt" {
		return "encryption"
	}
	return c.Resource.Service()
}

func keyAction(ability string) action {
	switch ability {
	case "tinycloud.kv/put":
		return actionPut
	case "tinycloud.kv/del", "tinycloud.kv/delete":
		return actionDelete
	case "tinycloud.kv/get":
		return actionGet
	case "tinycloud.kv/metadata":
		return actionMetadata
	case "tinycloud.kv/list":
		return actionList
	}
	return 0
}

// check refuses what no handler carries out. An invocation has caps capabilities.
func (p plan) check(caps int) error {
	switch puts := p.count(actionPut); {
	case p.multipart && puts > 0:
		return p.checkBatchPut(caps)
	case puts > 1:
		return tinycloud.Refuse(tinycloud.ErrInvalid, "KV batch put requires multipart/form-data")
	case p.readsBatch() && len(p.ops) > maxBatchRead:
		return tinycloud.Refuse(tinycloud.ErrInvalid, "KV batch reads accept at most %d keys", maxBatchRead)
	case len(p.ops) > 1 && !p.readsBatch():
		return tinycloud.Refuse(tinycloud.ErrUnsupported, mixedText)
	}
	return nil
}

// call is an admitted invocation on its way through its operation.
type call struct {
	w       http.ResponseWriter
	r       *http.Request
	token   *capstore.Token
	options options
	ahead   <-chan found // what a.record finds, asked before; nil: it was not
}

// found is what [kv.Keys.Get] returned.
type found struct {
	rec kv.Record
	err error
}

// soonRead is how long a body may be that is read before a used token is refused for good, in bytes.
const soonRead = 64 << 10

// serveInvoke admits an invocation, reads the request's options, and only then carries it out: what fails
// before that leaves the token usable.
func (a *API) serveInvoke(w http.ResponseWriter, r *http.Request) error {
	began := time.Now()
	defer a.metrics.authorized("invoke", began)
	header, err := authorization(r)
	if err != nil {
		return err
	}
	token, err := capstore.ParseInvocation(header)
	if err != nil {
		return err
	}
	if a.o.Networks != nil && encryption.Decrypts(token) {
		return a.invokeDecrypt(w, r, token)
	}
	admit := a.o.Store.Admit
	if r.ContentLength >= 0 && r.ContentLength <= soonRead {
		admit = a.o.Store.AdmitToPerform
	}
	err = admit(r.Context(), token)
	observe(a.metrics.authorization.WithLabelValues("invoke"), began)
	if err != nil {
		return err
	}
	if err := a.o.Store.Readable(r.Context(), token); err != nil {
		return err
	}
	p, err := a.planOf(token, isMultipart(r.Header))
	if err != nil {
		return err
	}
	options, err := readOptions(r.Header, p)
	if err != nil {
		return err
	}
	c := &call{w: w, r: r, token: token, options: options}
	switch {
	case len(token.Caps) == 0:
		return nil // it asks for nothing, and may do so again
	case len(p.ops) == 0:
		return a.o.Store.Spend(r.Context(), token)
	}
	return a.perform(c, p)
}

func (a *API) perform(c *call, p plan) error {
	o := p.ops[0]
	switch {
	case o.action == actionPut && p.multipart:
		return a.putBatch(c, p.ops)
	case o.action == actionPut:
		defer observe(a.metrics.put, time.Now())
		return a.put(c, o)
	case o.action == actionDelete:
		return a.delete(c, o)
	case o.action == actionService && (o.whole || o.by.Mutates(o.ability)):
		return a.invokeService(c, o)
	}
	if o.action == actionList {
		if err := a.checkCursor(c, o); err != nil {
			return err
		}
	}
	if o.action == actionGet && a.o.Store.Shared() && !p.readsBatch() {
		c.ahead = a.recordAhead(c, o)
	}
	if err := a.o.Store.Spend(c.r.Context(), c.token); err != nil {
		return err
	}
	switch {
	case p.readsBatch():
		return a.readBatch(c, p.ops)
	case o.action == actionGet:
		defer observe(a.metrics.get, time.Now())
		return a.get(c, o)
	case o.action == actionMetadata:
		return a.metadata(c, o)
	case o.action == actionList:
		return a.list(c, o)
	case o.action == actionService:
		return a.invokeService(c, o)
	default:
		return a.capabilities(c, o)
	}
}

func (a *API) invokeService(c *call, o op) error {
	return o.by.Invoke(c.w, c.r, service.Call{Store: a.o.Store, Token: c.token, Space: o.space, Path: o.key, Ability: o.ability})
}
