package certs

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Redirect sends plain HTTP on to HTTPS at a port, with the method it came with. A host that is none of names, if there are any, is
// sent to the first. Nothing of a body is read.
func Redirect(port int, names []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOf(r)
		if len(names) > 0 && !slices.Contains(names, host) {
			host = names[0]
		}
		if host == "" {
			http.Error(w, "This port speaks plain HTTP and is for requests that name a host", http.StatusBadRequest)
			return
		}
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		if port != 443 {
			host = fmt.Sprintf("%s:%d", host, port)
		}
		w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

// hostOf is the host that a request names, without a port, "" for what is no name and no address.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for i := range len(host) {
		if c := host[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != ':' {
			return ""
		}
	}
	return host
}
