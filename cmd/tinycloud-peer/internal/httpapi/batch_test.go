package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// batch is what a batch of reads answers with.
type batch struct {
	Results []struct {
		Key        string
		OK         bool
		DataBase64 *string
		Headers    map[string]string
		Error      map[string]string
	}
}

func (o *owner) batch(ability string, keys ...string) answer {
	o.n.t.Helper()
	var pairs []string
	for _, key := range keys {
		pairs = append(pairs, "kv/"+key, "tinycloud.kv/"+ability)
	}
	return o.invoke(nil, pairs...)
}

func TestBatchGet(t *testing.T) {
	n := newNode(t)
	o := n.owner("batch")
	large := pattern(1<<20 + 1)
	values := map[string]string{"a": "v", "b": "", "c,dataBase64:": "<two>", "large": large}
	for key, value := range values {
		o.put(key, value, nil).want(t, "put "+key, 200, "")
	}
	o.put("typed", "x", map[string]string{"Content-Type": "text/x", "X-Tinycloud-Meta-A": "<&>"}).want(t, "put", 200, "")
	values["typed"] = "x"
	keys := []string{"a", "b", "c,dataBase64:", "large", "missing", "typed"}
	got := o.batch("get", keys...)
	if got.status != 200 || got.header.Get("Content-Length") != fmt.Sprint(len(got.body)) || got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %.200s", got.status, got.header, got.body)
	}
	var b batch
	must(t, json.Unmarshal([]byte(got.body), &b))
	if len(b.Results) != len(keys) {
		t.Fatalf("%d results", len(b.Results))
	}
	for i, r := range b.Results {
		value, exists := values[keys[i]]
		if r.Key != keys[i] || r.OK != exists || (r.DataBase64 != nil) != exists {
			t.Fatalf("result %d: %q %t", i, r.Key, r.OK)
		}
		if !exists {
			if diff := cmp.Diff(map[string]string{"code": "KV_NOT_FOUND", "message": "Key not found: missing"}, r.Error); diff != "" {
				t.Error(diff)
			}
			continue
		}
		data, err := base64.StdEncoding.Strict().DecodeString(*r.DataBase64)
		must(t, err)
		if string(data) != value || r.Error != nil {
			t.Errorf("%q: %d bytes, want %d", r.Key, len(data), len(value))
		}
		want := map[string]string{
			"etag": `"blake3-` + tinycloud.Sum(data).String() + `"`, "content-length": fmt.Sprint(len(value)),
		}
		if r.Key == "typed" {
			want["content-type"], want["x-tinycloud-meta-a"] = "text/x", "<&>"
		}
		if diff := cmp.Diff(want, r.Headers); diff != "" {
			t.Errorf("%q: %s", r.Key, diff)
		}
	}
	for limit, status := range map[int]int{len(large) + 7: 200, len(large) + 6: 413} {
		header := map[string]string{"X-Tinycloud-Max-Response-Bytes": fmt.Sprint(limit)}
		var pairs []string
		for _, key := range keys {
			pairs = append(pairs, "kv/"+key, "tinycloud.kv/get")
		}
		if got := o.invoke(header, pairs...); got.status != status {
			t.Errorf("at most %d bytes: %d %.200s", limit, got.status, got.body)
		}
	}

	must(t, n.blocks.Delete(t.Context(), o.space, tinycloud.Sum([]byte(large))))
	away := o.batch("get", keys...)
	if away.status != 503 || !strings.Contains(away.body, "not arrived") {
		t.Errorf("value that isn't here: %d %.200s", away.status, away.body)
	}
	if got := o.batch("metadata", keys...); got.status != 200 {
		t.Errorf("metadata of a value that isn't here: %d %.200s", got.status, got.body)
	}
}

func TestBatchMetadata(t *testing.T) {
	n := newNode(t)
	o := n.owner("batch")
	o.put("a", "v", map[string]string{"Content-Type": "text/x"}).want(t, "put", 200, "")
	tag := tinycloud.Sum([]byte("v")).String()
	o.batch("metadata", "a", "b").want(t, "metadata", 200, `{"results":[{"key":"a","ok":true,"headers":{"content-type":"text/x","etag":"\"blake3-`+
		tag+`\""}},{"key":"b","ok":false,"error":{"code":"KV_NOT_FOUND","message":"Key not found: b"}}]}`)
}

func TestBatchReadBounds(t *testing.T) {
	n := newNode(t)
	o := n.owner("bounds")
	keys := make([]string, 101)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%03d", i)
	}
	for _, ability := range []string{"get", "metadata"} {
		o.batch(ability, keys...).want(t, ability, 400, "KV batch reads accept at most 100 keys")
		got := o.batch(ability, keys[:100]...)
		var b batch
		must(t, json.Unmarshal([]byte(got.body), &b))
		if got.status != 200 || len(b.Results) != 100 {
			t.Errorf("%s: %d, %d results", ability, got.status, len(b.Results))
		}
	}
	token := o.token("kv/a", "tinycloud.kv/get", "kv/b", "tinycloud.kv/get")
	if got := n.post("/invoke", token); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	n.post("/invoke", token).want(t, "replay", 409, "duplicate invocation")
	const mixed = "Multiple invocation outcomes require a homogeneous KV get or metadata batch"
	o.invoke(nil, "kv/a", "tinycloud.kv/list", "kv/b", "tinycloud.kv/list").want(t, "lists", 501, mixed)
	o.invoke(nil, "kv/a", "tinycloud.kv/del", "kv/b", "tinycloud.kv/del").want(t, "deletes", 501, mixed)
}

// TestBatchOrder shows that results come in the order signed, not in that of the keys.
func TestBatchOrder(t *testing.T) {
	n := newNode(t)
	o := n.owner("order")
	keys := []string{"b", "d/e", "a", "missing", "d"}
	for _, key := range []string{"a", "b", "d", "d/e"} {
		o.put(key, key, nil).want(t, "put", 200, "")
	}
	for _, ability := range []string{"get", "metadata"} {
		var members []string
		for _, key := range keys {
			members = append(members, fmt.Sprintf(`"%s/kv/%s":{"tinycloud.kv/%s":[{}]}`, o.space, key, ability))
		}
		got := n.post("/invoke", o.session.Invoke(captest.TokenOptions{Att: "{" + strings.Join(members, ",") + "}", Proofs: o.proofs()}))
		var b batch
		must(t, json.Unmarshal([]byte(got.body), &b))
		var order []string
		for _, r := range b.Results {
			order = append(order, r.Key)
		}
		if diff := cmp.Diff(keys, order); diff != "" {
			t.Errorf("%s: %s", ability, diff)
		}
	}
}
