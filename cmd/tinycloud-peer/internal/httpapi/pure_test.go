package httpapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

const tag = `"blake3-00"`

var ranges = []struct {
	header        string
	size          int64
	start, length int64
	partial, bad  bool
}{
	{"bytes=0-4", 10, 0, 5, true, false},
	{"bytes=9-9", 10, 9, 1, true, false},
	{"bytes=5-", 10, 5, 5, true, false},
	{"bytes=5-100", 10, 5, 5, true, false},
	{"bytes=-3", 10, 7, 3, true, false},
	{"bytes=-30", 10, 0, 10, true, false},
	{"bytes=0-9223372036854775807", 10, 0, 10, true, false},
	{"bytes=10-", 10, 0, 0, false, true},
	{"bytes=10-12", 10, 0, 0, false, true},
	{"bytes=-0", 10, 0, 0, false, true},
	{"bytes=0-", 0, 0, 0, false, true},
	{"bytes=-1", 0, 0, 0, false, true},
	{"", 10, 0, 10, false, false},
	{"bytes=4-2", 10, 0, 10, false, false},
	{"bytes=-", 10, 0, 10, false, false},
	{"bytes=a-", 10, 0, 10, false, false},
	{"bytes=1-b", 10, 0, 10, false, false},
	{"bytes=+1-2", 10, 0, 10, false, false},
	{"bytes=0-1,3-4", 10, 0, 10, false, false},
	{"bytes=9223372036854775808-", 10, 0, 10, false, false},
	{"items=0-1", 10, 0, 10, false, false},
	{"bytes=7", 10, 0, 10, false, false},
}

func TestRange(t *testing.T) {
	for _, tt := range ranges {
		start, length, partial, err := httpapi.PartOf(http.Header{"Range": {tt.header}}, tag, tt.size)
		if bad := errors.Is(err, tinycloud.ErrRange); bad != tt.bad || start != tt.start || length != tt.length || partial != tt.partial {
			t.Errorf("%q of %d: %d+%d %v %v", tt.header, tt.size, start, length, partial, err)
		}
	}
	for condition, want := range map[string]bool{tag: true, "W/" + tag: false, `"other"`: false} {
		_, _, partial, err := httpapi.PartOf(http.Header{"Range": {"bytes=0-1"}, "If-Range": {condition}}, tag, 10)
		if partial != want || err != nil {
			t.Errorf("If-Range %s: %v %v", condition, partial, err)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, tt := range ranges {
		f.Add(tt.header, tt.size)
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return // no value has this size
		}
		start, length, partial, err := httpapi.PartOf(http.Header{"Range": {header}}, tag, size)
		if err == nil && (start < 0 || length < 0 || start > size-length || !partial && length != size) {
			t.Errorf("%q of %d: %d+%d", header, size, start, length)
		}
	})
}

var facts = []struct {
	name, facts string
	isChain     bool
	chain       string
	filter      capstore.Filter
}{
	{name: "none", facts: `[]`},
	{name: "no parameters", facts: `[{"other":1},"text",3,null]`},
	{name: "list", facts: `[{"capabilitiesReadParams":{"type":"list"}}]`},
	{name: "null filters", facts: `[{"capabilitiesReadParams":{"type":"list","filters":null}}]`},
	{
		name:   "filters",
		facts:  `[{"capabilitiesReadParams":{"type":"list","filters":{"direction":"created","path":"a/","actions":["x/y"]}}}]`,
		filter: capstore.Filter{Direction: "created", Path: "a/", Actions: []string{"x/y"}},
	},
	{name: "chain", facts: `[{"capabilitiesReadParams":{"type":"chain","delegation_cid":"b"}}]`, isChain: true, chain: "b"},
	{name: "chain of no CID", facts: `[{"capabilitiesReadParams":{"type":"chain","delegation_cid":""}}]`, isChain: true},
	{name: "chain in another spelling", facts: `[{"capabilitiesReadParams":{"type":"chain","delegationCid":"b"}}]`},
	{name: "names differ in case", facts: `[{"capabilitiesReadParams":{"Type":"chain","Delegation_CID":"b"}}]`},
	{
		name:    "the first that parses",
		facts:   `[{"capabilitiesReadParams":{"type":"list","filters":{"actions":"no list"}}},{"capabilitiesReadParams":{"type":"chain","delegation_cid":"b"}}]`,
		isChain: true, chain: "b",
	},
}

func TestCapabilityParams(t *testing.T) {
	for _, tt := range facts {
		t.Run(tt.name, func(t *testing.T) {
			var raw []json.RawMessage
			must(t, json.Unmarshal([]byte(tt.facts), &raw))
			isChain, chain, filter := httpapi.ParamsOf(raw)
			if isChain != tt.isChain || chain != tt.chain {
				t.Errorf("chain %v %q", isChain, chain)
			}
			if diff := cmp.Diff(tt.filter, filter); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzCapabilityParams(f *testing.F) {
	for _, tt := range facts {
		f.Add([]byte(tt.facts))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var raw []json.RawMessage
		if json.Unmarshal(b, &raw) != nil {
			return
		}
		if isChain, chain, filter := httpapi.ParamsOf(raw); !isChain && chain != "" || isChain && !cmp.Equal(filter, capstore.Filter{}) {
			t.Errorf("both a list and a chain: %v %q %v", isChain, chain, filter)
		}
	})
}

func TestMetadata(t *testing.T) {
	got := httpapi.MetadataOf(http.Header{
		"Content-Type": {"text/html", "text/plain"}, "Content-Encoding": {"gzip"}, "Content-Language": {"en"},
		"Content-Disposition": {"inline"}, "X-Tinycloud-Meta-Color": {"blue"}, "X-Tinycloud-Meta-Bad": {"\xff"},
		"X-Tinycloud-Meta-Utf8": {"naïve"}, "X-Tinycloud-Limit": {"3"}, "Authorization": {"secret"}, "Cookie": {"secret"},
		"Content-Length": {"3"}, "Transfer-Encoding": {"chunked"}, "Connection": {"close"},
	})
	want := map[string]string{
		"content-type": "text/plain", "content-encoding": "gzip", "content-language": "en", "content-disposition": "inline",
		"x-tinycloud-meta-color": "blue", "x-tinycloud-meta-utf8": "naïve",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stored, - want, + got:\n%s", diff)
	}
	h := http.Header{}
	httpapi.SetMetadata(h, map[string]string{
		"authorization": "secret", "transfer-encoding": "chunked", "x-tinycloud-meta-a": "b", "x-tinycloud-meta-c": "d\r\nset-cookie: e",
	})
	if diff := cmp.Diff(http.Header{"Content-Type": nil, "X-Tinycloud-Meta-A": {"b"}}, h); diff != "" {
		t.Errorf("sent, - want, + got:\n%s", diff)
	}
}

func TestNoneMatches(t *testing.T) {
	for list, want := range map[string]bool{
		"*": true, tag: true, "W/" + tag: true, `"x", ` + tag: true, `"x",W/` + tag: true, `"x"`: false, "": false, "blake3-00": false,
	} {
		if got := httpapi.NoneMatches(list, tag); got != want {
			t.Errorf("%s: %v", list, got)
		}
	}
}

func TestVerdict(t *testing.T) {
	for class, want := range map[error]int{
		tinycloud.ErrInvalid: 400, tinycloud.ErrUndecodable: 401, tinycloud.ErrForged: 401, tinycloud.ErrUnauthorized: 401,
		tinycloud.ErrQuota: 402, tinycloud.ErrForbidden: 403, tinycloud.ErrNotFound: 404, tinycloud.ErrConflict: 409,
		tinycloud.ErrPrecondition: 412, tinycloud.ErrTooLarge: 413, tinycloud.ErrRange: 416, tinycloud.ErrBusy: 429,
		tinycloud.ErrUnsupported: 501, tinycloud.ErrFull: 507, tinycloud.ErrUnavailable: 503, errors.New("disk on fire"): 500,
	} {
		status, text := httpapi.Verdict(fmt.Errorf("where: %w", class))
		if status != want || strings.Contains(text, "where") || strings.Contains(text, "fire") {
			t.Errorf("%v: %d %q, want %d", class, status, text, want)
		}
	}
}
