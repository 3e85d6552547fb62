package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

type hash = tinycloud.Hash

func (o *owner) proofs() []hash { return []hash{o.proof} }

func pattern(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 3)
	}
	return string(b)
}

// TestLargeValue goes through the block store, which small values don't.
func TestLargeValue(t *testing.T) {
	n := newNode(t)
	o := n.owner("large")
	value := pattern(3<<20 + 1)
	tag := `"blake3-` + tinycloud.Sum([]byte(value)).String() + `"`
	put := o.put("big", value, map[string]string{"Content-Type": "video/x"})
	if put.want(t, "put", 200, ""); put.header.Get("ETag") != tag {
		t.Errorf("etag %s, want %s", put.header.Get("ETag"), tag)
	}
	got := o.get("big", nil)
	if got.status != 200 || got.body != value || got.header.Get("Content-Length") != fmt.Sprint(len(value)) {
		t.Errorf("get: %d, %d bytes", got.status, len(got.body))
	}
	part := o.get("big", map[string]string{"Range": "bytes=1048570-1048585", "If-Range": tag})
	part.want(t, "range", 206, value[1048570:1048586])
	if cr := part.header.Get("Content-Range"); cr != "bytes 1048570-1048585/3145729" {
		t.Error(cr)
	}
	o.get("big", map[string]string{"Range": "bytes=0-1", "If-Range": `"other"`, "X-Tinycloud-Max-Response-Bytes": "10"}).want(t,
		"If-Range of another value", 413, "KV response is 3145729 bytes, exceeding the requested limit of 10 bytes")
	beyond := o.get("big", map[string]string{"Range": "bytes=3145729-"})
	beyond.want(t, "range beyond the end", 416, "")
	if cr := beyond.header.Get("Content-Range"); cr != "bytes */3145729" {
		t.Error(cr)
	}

	must(t, n.blocks.Delete(t.Context(), o.space, tinycloud.Sum([]byte(value))))
	away := o.get("big", nil)
	if away.status != 503 || away.header.Get("Retry-After") == "" || !strings.Contains(away.body, "not arrived") {
		t.Errorf("value that isn't here: %d %q %v", away.status, away.body, away.header)
	}
	o.invoke(nil, "kv/big", "tinycloud.kv/metadata").want(t, "its metadata", 200, "")
}

func TestContentTypes(t *testing.T) {
	n := newNode(t)
	o := n.owner("types")
	for _, contentType := range []string{"text/plain;charset=UTF-8", "TEXT/html ; x=y", "not a type", ""} {
		header := map[string]string{}
		if contentType != "" {
			header["Content-Type"] = contentType
		}
		o.put("k", "<html>", header).want(t, "put", 200, "")
		got := o.get("k", nil)
		got.want(t, "get", 200, "<html>")
		if _, present := got.header["Content-Type"]; got.header.Get("Content-Type") != contentType || present != (contentType != "") {
			t.Errorf("content type %q, want %q", got.header["Content-Type"], contentType)
		}
	}
}

func TestListCovered(t *testing.T) {
	n := newNode(t)
	o := n.owner("covered")
	for _, key := range []string{"foo", "foo/a", "foo/b", "foobar", "foobar/c", "fo", "a&b"} {
		o.put(key, "v", nil).want(t, "put "+key, 200, "")
	}
	if diff := cmp.Diff([]string{"fo", "foo", "foo/a", "foo/b", "foobar", "foobar/c"}, o.keys("fo", nil)); diff != "" {
		t.Errorf("owner's session:\n%s", diff)
	}
	o.invoke(nil, "kv/a", "tinycloud.kv/list").want(t, "not escaped for HTML", 200, `["a&b"]`)
	guest := captest.NewSession("guest")
	proof := o.delegate(guest, captest.Caps{o.space.String() + "/kv/foo": {"tinycloud.kv/list"}})
	list := func(header map[string]string) answer {
		return n.do(n.request("POST", "/invoke", guest.Invoke(captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/kv/foo": {"tinycloud.kv/list"}}, Proofs: []hash{proof},
		}), header, nil))
	}
	list(nil).want(t, "guest", 200, `["foo","foo/a","foo/b"]`)
	exact := list(map[string]string{"X-Tinycloud-Limit": "3"})
	exact.want(t, "guest, all of it", 200, `["foo","foo/a","foo/b"]`)
	if exact.header.Get("X-Tinycloud-Truncated") != "false" || exact.header.Get("X-Tinycloud-Next-Cursor") != "" {
		t.Errorf("keys that are not covered count: %v", exact.header)
	}
	first := list(map[string]string{"X-Tinycloud-Limit": "2"})
	first.want(t, "guest, first page", 200, `["foo","foo/a"]`)
	cursor := first.header.Get("X-Tinycloud-Next-Cursor")
	next := map[string]string{"X-Tinycloud-Limit": "2", "X-Tinycloud-Cursor": cursor}
	list(next).want(t, "guest, second page", 200, `["foo/b"]`)
	o.invoke(next, "kv/foo", "tinycloud.kv/list").want(t, "cursor of another subject", 400, "Invalid KV list cursor")
	next["X-Tinycloud-Limit"] = "1"
	list(next).want(t, "cursor of another limit", 400, "Invalid KV list cursor")
	delete(next, "X-Tinycloud-Limit")
	list(next).want(t, "cursor without limit", 400, "Invalid KV list cursor")
}

// TestLongList lists more keys than are read at once.
func TestLongList(t *testing.T) {
	n := newNode(t)
	o := n.owner("long")
	const total, batch = 2250, 250
	var want []string
	for i := 0; i < total; i += batch {
		caps := captest.Caps{}
		var ops []kv.Op
		for j := i; j < i+batch; j++ {
			key := fmt.Sprintf("k/%04d", j)
			want = append(want, key)
			caps[o.space.String()+"/kv/"+key] = []string{"tinycloud.kv/put"}
			ops = append(ops, kv.Op{Space: o.space, Key: key, Value: tinycloud.Sum(nil), Inline: []byte{}})
		}
		token, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{Caps: caps, Proofs: o.proofs()}))
		must(t, err)
		_, err = kv.Of(n.store).Write(t.Context(), token, ops, nil)
		must(t, err)
	}
	if diff := cmp.Diff(want, o.keys("k", nil)); diff != "" {
		t.Errorf("whole list:\n%s", diff)
	}
	var paged []string
	header := map[string]string{"X-Tinycloud-Limit": "1000"}
	for range 3 {
		got := o.invoke(header, "kv/", "tinycloud.kv/list")
		var page []string
		must(t, json.Unmarshal([]byte(got.body), &page))
		paged = append(paged, page...)
		header["X-Tinycloud-Cursor"] = got.header.Get("X-Tinycloud-Next-Cursor")
		if more := got.header.Get("X-Tinycloud-Truncated"); (more == "true") != (header["X-Tinycloud-Cursor"] != "") {
			t.Errorf("truncated %s, cursor %q", more, header["X-Tinycloud-Cursor"])
		}
	}
	if diff := cmp.Diff(want, paged); diff != "" || header["X-Tinycloud-Cursor"] != "" {
		t.Errorf("pages, ending with cursor %q:\n%s", header["X-Tinycloud-Cursor"], diff)
	}
}

func TestDelete(t *testing.T) {
	n := newNode(t)
	o := n.owner("delete")
	o.put("k", "v", nil).want(t, "put", 200, "")
	tag := `"blake3-` + tinycloud.Sum([]byte("v")).String() + `"`
	other := `"blake3-` + tinycloud.Sum([]byte("w")).String() + `"`
	o.invoke(map[string]string{"If-Match": other}, "kv/k", "tinycloud.kv/del").want(t, "other value", 412, "KV precondition failed")
	got := o.invoke(map[string]string{"If-Match": `"blake3-` + strings.ToUpper(tag[8:72]) + `"`}, "kv/k", "tinycloud.kv/delete")
	if got.want(t, "delete by its other name", 200, ""); got.header.Get("ETag") != tag {
		t.Errorf("etag %q", got.header.Get("ETag"))
	}
	o.get("k", nil).want(t, "get", 404, "Key not found")
}

func TestQuota(t *testing.T) {
	n := newNode(t, func(c *capstore.Options, _ *httpapi.Options) {
		c.Limit = func(tinycloud.SpaceID) (int64, bool) { return 20, true }
	})
	o := n.owner("quota")
	o.put("a", strings.Repeat("a", 15), nil).want(t, "first", 200, "")
	o.put("b", strings.Repeat("b", 15), nil).want(t, "too much", 413, "Write exceeds remaining storage. Used: 15 bytes, Limit: 20 bytes")
	o.put("b", strings.Repeat("b", 5), nil).want(t, "exactly", 200, "")
	o.put("c", "c", nil).want(t, "full", 402, "Storage quota exceeded. Used: 20 bytes, Limit: 20 bytes")
}

func TestCapabilityParents(t *testing.T) {
	n := newNode(t)
	o := n.owner("parents")
	guest := captest.NewSession("guest")
	header := o.session.Delegate(guest.DID(), captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/kv/x": {"tinycloud.kv/get"}}, Proofs: o.proofs(),
		Expires: time.Now().Add(time.Minute).Truncate(time.Second), Caveats: "[{}]",
	})
	if got := n.post("/delegate", header); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	got := o.invoke(nil, "capabilities/all", "tinycloud.capabilities/read")
	var all map[string]struct {
		Parents  [][]int
		Raw      string
		Delegate string
	}
	must(t, json.Unmarshal([]byte(got.body), &all))
	d := all[captest.ID(header).EventID()]
	if len(d.Parents) != 1 || d.Raw != header || d.Delegate != string(guest.DID()) || len(all) != 3 {
		t.Fatalf("%d delegations, %+v", len(all), d)
	}
	var id []byte
	for _, b := range d.Parents[0] {
		id = append(id, byte(b))
	}
	if !bytes.Equal(id, o.proof.CID(tinycloud.RawCodec).Bytes()) {
		t.Errorf("parent %x", id)
	}
	bad := o.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/capabilities/all": {"tinycloud.capabilities/read"}}, Proofs: o.proofs(),
		Facts: []json.RawMessage{json.RawMessage(`{"capabilitiesReadParams":{"type":"chain","delegation_cid":"nonsense"}}`)},
	})
	n.post("/invoke", bad).want(t, "no CID", 401, "Invalid delegation CID: nonsense")
}

func TestSessionRevokes(t *testing.T) {
	n := newNode(t)
	o := n.owner("revokes")
	n.post("/revoke", o.wallet.SignDelegation(captest.DelegationOptions{Audience: o.session.URI()})).want(t,
		"no target", http.StatusForbidden, "Revocation names no target")
	n.post("/revoke", o.wallet.SignRevocation(o.proof)).want(t, "revoke", 200, `{"revoked":true,"cid":"`+o.proof.EventID()+`"}`)
	o.get("k", nil).want(t, "afterwards", 401, "delegation-revoked: "+o.proof.EventID())
}

func TestBodyOfUnknownLength(t *testing.T) {
	n := newNode(t)
	o := n.owner("chunked")
	value := pattern(100_000)
	n.do(n.request("POST", "/invoke", o.token("kv/k", "tinycloud.kv/put"), nil, io.MultiReader(strings.NewReader(value)))).want(t, "put", 200, "")
	o.get("k", nil).want(t, "get", 200, value)
}

func TestLongHeader(t *testing.T) {
	n := newNode(t)
	o := n.owner("header")
	const name = "x-tinycloud-meta-a"
	longest := strings.Repeat("x", 16<<10-len(name))
	o.put("k", "v", map[string]string{name: longest}).want(t, "longest", 200, "")
	o.put("k", "v", map[string]string{name: longest + "x"}).want(t, "longer", 413, "The headers to be stored exceed the limit of 16384 bytes")
}
