package httpapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

// reads asks for the delegations of the owner's Space.
func (o *owner) reads(params string) answer {
	o.n.t.Helper()
	return o.n.post("/invoke", o.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/capabilities/all": {"tinycloud.capabilities/read"}}, Proofs: []hash{o.proof},
		Facts: []json.RawMessage{json.RawMessage(`{"capabilitiesReadParams":` + params + `}`)},
	}))
}

// Short tokens make long lists, for a resource stands once in a token and once for each of its abilities in a list. An
// answer ends, and says where the next one begins; together they have each delegation once.
func TestCapabilitiesInPages(t *testing.T) {
	n := newNode(t)
	o := n.owner("many delegations")
	abilities := make([]string, 200)
	for i := range abilities {
		abilities[i] = fmt.Sprintf("tinycloud.kv/ability-%d", i)
	}
	want := map[string]bool{o.proof.EventID(): true}
	for i := range 60 {
		key := strings.Repeat("k", 400)
		id := o.delegate(captest.NewSession(fmt.Sprint(i)), captest.Caps{fmt.Sprint(o.space, "/kv/", key, i): abilities})
		want[id.EventID()] = true
	}
	const bound = 5 << 20 // bytes: 4 MiB, about, and one delegation more
	got, pages, last := map[string]json.RawMessage{}, 0, ""
	for params := `{"type":"list"}`; ; pages++ {
		a := o.reads(params)
		page := map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != 200 || len(a.body) > bound {
			t.Fatalf("%d, %d bytes: %v", a.status, len(a.body), err)
		}
		for id, d := range page {
			if got[id] != nil {
				t.Errorf("%s is listed twice", id)
			}
			got[id] = d
		}
		last = a.header.Get("X-Tinycloud-Next-Cursor")
		if (a.header.Get("X-Tinycloud-Truncated") == "true") != (last != "") {
			t.Errorf("truncated: %s, next: %q", a.header.Get("X-Tinycloud-Truncated"), last)
		}
		if last == "" {
			break
		}
		params = fmt.Sprintf(`{"type":"list","cursor":"%s"}`, last)
	}
	for id := range want {
		if got[id] == nil {
			t.Errorf("%s is in none of %d pages", id, pages)
		}
	}
	if pages == 0 {
		t.Error("one answer holds all")
	}
	o.reads(`{"type":"list","cursor":"nonsense"}`).want(t, "another cursor", 400, "Invalid capabilities cursor: nonsense")
}

// Lists are searched for a few at a time.
func TestCapabilitiesInTurn(t *testing.T) {
	n := newNode(t)
	o := n.owner("busy")
	release := n.api.TakeListings()
	a := o.reads(`{"type":"list"}`)
	a.want(t, "no turn", 503, "Too many lists of capabilities at once; retry the request")
	if a.header.Get("Retry-After") == "" {
		t.Error("not said when to come again")
	}
	release()
	if a = o.reads(`{"type":"list"}`); a.status != 200 {
		t.Error(a.status, a.body)
	}
}

// What is looked at for one delegation is not counted against those that follow.
func TestManyPassedOn(t *testing.T) {
	n := newNode(t, func(c *capstore.Options, _ *httpapi.Options) { c.MaxLifetime = time.Hour })
	o := n.owner("passed on")
	caps := captest.Caps{}
	for i := range 60 {
		caps[fmt.Sprint(o.space, "/kv/", i)] = []string{"tinycloud.kv/get"}
	}
	friend := captest.NewSession("friend")
	root := o.delegate(friend, caps)
	for i := range 20 {
		header := friend.Delegate(captest.NewSession(fmt.Sprint("friend of a friend ", i)).DID(), captest.TokenOptions{
			Caps: caps, Proofs: []hash{root}, Expires: time.Now().Add(time.Minute).Truncate(time.Second),
		})
		if a := n.post("/delegate", header); a.status != 200 {
			t.Fatal(a.status, a.body)
		}
	}
	page := map[string]json.RawMessage{}
	a := o.reads(`{"type":"list"}`)
	if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != 200 || len(page) != 3+20 {
		t.Errorf("%d: %d delegations, %v", a.status, len(page), err)
	}
}
