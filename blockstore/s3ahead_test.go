package blockstore_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
)

// reading is a bucket with a long value, whose parts the test answers.
func reading(t *testing.T, size int, parts func(w http.ResponseWriter, r *http.Request, answer http.Handler)) (s *blockstore.Store, space tinycloud.SpaceID, body []byte) {
	t.Helper()
	b := servers.S3(t)
	s3 := proxy(t, b, func(rp *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && r.Header.Get("Range") != "" {
				parts(w, r, rp)
				return
			}
			rp.ServeHTTP(w, r)
		})
	})
	s3.ReadAhead()
	s = open(t, blockstore.Options{Dir: t.TempDir(), S3: s3})
	space, body = blockstoretest.Space(t, "default"), blockstoretest.Body(1, size)
	if err := store(t.Context(), s, space, body); err != nil {
		t.Fatal(err)
	}
	return s, space, body
}

// begin opens a value, and reads some of it.
func begin(t *testing.T, s *blockstore.Store, space tinycloud.SpaceID, body []byte, n int64) *blockstore.Value {
	t.Helper()
	v, _, err := s.Open(t.Context(), space, tinycloud.Sum(body))
	if err == nil {
		_, err = io.CopyN(io.Discard, v, n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Parts ahead of a slow stream are on their way together, and no more than four before one is read: the service answers none
// before it has seen four.
func TestS3ReadAhead(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	four := make(chan struct{})
	s, space, body := reading(t, 50<<20+5, func(w http.ResponseWriter, r *http.Request, answer http.Handler) {
		if seen.Add(1) == 4 {
			close(four)
		}
		select {
		case <-four:
		case <-r.Context().Done():
		}
		answer.ServeHTTP(w, r)
	})
	begun := begin(t, s, space, body, 9<<20)
	<-four
	if err := begun.Close(); err != nil {
		t.Error(err)
	}
	if n := seen.Load(); n != 4 {
		t.Errorf("%d parts were asked for", n)
	}
	v, _, err := s.Open(t.Context(), space, tinycloud.Sum(body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(v); err != nil || !bytes.Equal(got, body) {
		t.Errorf("read %d of %d bytes, %v", len(got), len(body), err)
	}
	if n := seen.Load() - 4; n < 8 {
		t.Errorf("only %d parts were read ahead", n)
	}
	// It can be read again from anywhere.
	for _, at := range []int64{0, 13 << 20, int64(len(body)) - 3} {
		if _, err := v.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(v); err != nil || !bytes.Equal(got, body[at:]) {
			t.Errorf("from %d: %d bytes, %v", at, len(got), err)
		}
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// A seek away from what is read ahead, and back into it, reads what is there.
func TestS3SeekWhileReadAhead(t *testing.T) {
	t.Parallel()
	s, space, body := reading(t, 40<<20, func(w http.ResponseWriter, r *http.Request, answer http.Handler) { answer.ServeHTTP(w, r) })
	for _, to := range []int64{0, 14 << 20, 17<<20 + 1, 39 << 20} {
		v := begin(t, s, space, body, 15<<20)
		if _, err := v.Seek(to, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(v); err != nil || !bytes.Equal(got, body[to:]) {
			t.Errorf("from %d: %d bytes, %v", to, len(got), err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A service that refuses parts is read in one stream.
func TestS3RefusesParts(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	s, space, body := reading(t, 40<<20, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		refused.Add(1)
		w.WriteHeader(http.StatusForbidden)
	})
	if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil || refused.Load() == 0 {
		t.Errorf("%v, %d refused", err, refused.Load())
	}
}

// A reader that closes waits for none of the parts that it asked for, and leaves room for others to read ahead.
func TestS3ReadersAheadEnd(t *testing.T) {
	t.Parallel()
	var hold atomic.Bool
	held := make(chan struct{}, 100)
	s, space, body := reading(t, 40<<20, func(w http.ResponseWriter, r *http.Request, answer http.Handler) {
		if hold.Load() {
			held <- struct{}{}
			<-r.Context().Done()
			return
		}
		answer.ServeHTTP(w, r)
	})
	hold.Store(true)
	for range 6 { // more than may read ahead
		v := begin(t, s, space, body, 12<<20)
		for range 4 {
			<-held
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	hold.Store(false)
	if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil {
		t.Error(err)
	}
}

// What is a slow stream.
func TestS3Slow(t *testing.T) {
	for _, tt := range []struct {
		waited, took time.Duration
		want         bool
	}{
		{100 * time.Millisecond, 110 * time.Millisecond, true},
		{100 * time.Millisecond, 200 * time.Millisecond, false}, // the reader is
		{60 * time.Millisecond, 60 * time.Millisecond, false},
	} {
		if got := blockstore.Slow(tt.waited, tt.took, 8<<20); got != tt.want {
			t.Errorf("8 MiB waited for %v in %v: %v", tt.waited, tt.took, got)
		}
	}
}
