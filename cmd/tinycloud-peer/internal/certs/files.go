package certs

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// look is how often files are looked at, at most: by a handshake, so that nothing has to watch them.
const look = time.Second

// Files are a certificate and its key in PEM files, read again when they change.
type Files struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	loaded *tls.Certificate
	read   [2]version
	looked time.Time
}

// version tells a file from what it was.
type version struct {
	size     int64
	modified time.Time
}

// NewFiles reads both files.
func NewFiles(cert, key string, log *slog.Logger) (*Files, error) {
	f := &Files{cert: cert, key: key, log: log, looked: time.Now()}
	var err error
	if f.read, err = f.versions(); err != nil {
		return nil, err
	}
	f.loaded, err = f.load()
	return f, err
}

func (f *Files) load() (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", f.cert, f.key, err)
	}
	return &c, nil
}

func (f *Files) versions() (out [2]version, err error) {
	for i, path := range []string{f.cert, f.key} {
		info, err := os.Stat(path)
		if err != nil {
			return out, err
		}
		out[i] = version{info.Size(), info.ModTime()}
	}
	return out, nil
}

// Config is of a listener that speaks TLS, HTTP/2 and HTTP/1.
func (f *Files) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current(), nil },
	}
}

// current is what the files hold, or last held: one may be written before the other.
func (f *Files) current() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < look {
		return f.loaded
	}
	f.looked = time.Now()
	now, err := f.versions()
	if err == nil && now == f.read {
		return f.loaded
	}
	var fresh *tls.Certificate
	if err == nil {
		fresh, err = f.load()
	}
	if err != nil { // once for each change
		if now != f.read {
			f.log.Warn("the changed certificate cannot be used, the one before still is", "error", err)
		}
		f.read = now
		return f.loaded
	}
	f.log.Info("the changed certificate is used", "expires", fresh.Leaf.NotAfter)
	f.loaded, f.read = fresh, now
	return f.loaded
}
