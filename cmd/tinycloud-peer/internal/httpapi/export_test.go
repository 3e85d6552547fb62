package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/tickets"
)

// PartOf exports partOf to tests.
func PartOf(h http.Header, tag string, size int64) (start, length int64, partial bool, err error) {
	p, err := partOf(h, tag, size)
	return p.start, p.length, p.partial, err
}

// ParamsOf exports paramsOf to tests.
func ParamsOf(facts []json.RawMessage) (isChain bool, chain string, filter capstore.Filter) {
	p := paramsOf(facts)
	return p.isChain, p.chain, p.filter
}

// MetadataOf exports metadataOf to tests.
func MetadataOf(h http.Header) map[string]string { return metadataOf(h) }

// SetMetadata exports setMetadata to tests.
func SetMetadata(h http.Header, metadata map[string]string) { setMetadata(h, metadata) }

// NoneMatches exports noneMatches to tests.
func NoneMatches(list, tag string) bool { return noneMatches(list, tag) }

// Verdict exports verdict to tests.
func Verdict(err error) (status int, text string) { return verdict(err) }

// ParseStatusBody exports parseStatusBody to tests.
func ParseStatusBody(b []byte) (tinycloud.Hash, string, error) { return parseStatusBody(b) }

// ParseQuery exports parseQuery to tests.
func ParseQuery(b []byte) (capstore.DelegationQuery, error) { return parseQuery(b) }

// Said exports said to tests.
func Said(t time.Time) *time.Time { return said(t) }

// ParseSigned exports parseSigned to tests.
func ParseSigned(body []byte) (tickets.Request, error) { return parseSigned(body) }

// TakeListings takes all turns to search for capabilities, until the function it returns is called.
func (a *API) TakeListings() (release func()) {
	for range cap(a.listings) {
		a.listings <- struct{}{}
	}
	return func() {
		for range cap(a.listings) {
			<-a.listings
		}
	}
}

// ReadBatch reads the body of a batch of puts of keys, as long as maxBody, and returns the values by key.
func ReadBatch(contentType string, body []byte, keys []string, stage StageFunc, maxBody int64) (map[string]int64, error) {
	r := httptest.NewRequest(http.MethodPost, "/invoke", bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	b := &batchPut{
		api: New(Options{Stage: stage, MaxBody: maxBody}), c: &call{w: httptest.NewRecorder(), r: r}, body: &bodyReader{r: r.Body},
		ops: make([]kv.Op, len(keys)), staged: make([]Staged, len(keys)), index: map[string]int{},
	}
	b.capped = &cappedReader{r: b.body, left: maxBody}
	for i, key := range keys {
		b.ops[i].Key, b.index[key] = key, i
	}
	defer b.discard()
	if err := b.read(); err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, o := range b.ops {
		sizes[o.Key] = o.Size
	}
	return sizes, nil
}
