package httpapi

import (
	"mime"
	"net/http"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// metadataOf returns what is stored of a request's headers: lower-case names, the last value of each. A
// value that is no text is left out.
func metadataOf(h http.Header) map[string]string {
	out := map[string]string{}
	for name, values := range h {
		lower := strings.ToLower(name)
		if last := values[len(values)-1]; kv.IsMetadata(lower, last) {
			out[lower] = last
		}
	}
	return out
}

// checkStored refuses what could be stored here but not replicated.
func checkStored(metadata map[string]string) error {
	if hostlog.MetadataSize(metadata) > hostlog.MaxMetadata {
		return tinycloud.Refuse(tinycloud.ErrTooLarge, "The headers to be stored exceed the limit of %d bytes", hostlog.MaxMetadata)
	}
	return nil
}

// setMetadata puts a value's metadata into an answer. It comes from other hosts too, so it is filtered again. A
// nil Content-Type keeps net/http from guessing one.
func setMetadata(h http.Header, metadata map[string]string) {
	h["Content-Type"] = nil
	for name, value := range metadata {
		if lower := strings.ToLower(name); kv.IsMetadata(lower, value) {
			h.Set(lower, value)
		}
	}
}

func isMultipart(h http.Header) bool {
	mediaType, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return mediaType == "multipart/form-data"
}
