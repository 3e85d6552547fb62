package blockstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// TestS3Abort checks that uploads in parts that fail leave no part: because a part is refused, because the caller
// gives up, because the service was killed, and because we were.
func TestS3Abort(t *testing.T) {
	b := servers.S3(t)
	space := blockstoretest.Space(t, "default")
	body := blockstoretest.Body(1, 40<<20)
	part := make(chan struct{}, 100)
	var fail atomic.Bool
	s3 := proxy(t, b, func(rp *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("partNumber") == "2" && fail.Load() {
				part <- struct{}{}
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusForbidden)
				return
			}
			rp.ServeHTTP(w, r)
		})
	})
	s := open(t, blockstore.Options{Dir: t.TempDir(), S3: s3})
	fail.Store(true)
	err := store(t.Context(), s, space, body)
	if !errors.Is(err, tinycloud.ErrUnavailable) || len(part) == 0 {
		t.Errorf("a part was refused %d times: %v", len(part), err)
	}
	wantNothing(t, s, b, space, body)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store(ctx, s, space, body); err == nil {
		t.Error("stored for a caller that gave up")
	}
	wantNothing(t, s, b, space, body)
	fail.Store(false)
	if err := store(t.Context(), s, space, body); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil {
		t.Error(err)
	}
	if list := objects(t, b); len(list) != 1 {
		t.Errorf("%q in the bucket", list)
	}
}

// TestS3PartsAtOnce checks that parts are on their way together: the service answers none before it has seen three.
func TestS3PartsAtOnce(t *testing.T) {
	b := servers.S3(t)
	space := blockstoretest.Space(t, "default")
	body := blockstoretest.Body(3, 40<<20)
	var seen atomic.Int64
	three := make(chan struct{})
	s3 := proxy(t, b, func(rp *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("partNumber") != "" {
				if seen.Add(1) == 3 {
					close(three)
				}
				select {
				case <-three:
				case <-r.Context().Done():
				}
			}
			rp.ServeHTTP(w, r)
		})
	})
	s := open(t, blockstore.Options{Dir: t.TempDir(), S3: s3})
	if err := store(t.Context(), s, space, body); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil {
		t.Error(err)
	}
}

func wantNothing(t *testing.T, s *blockstore.Store, b *testservers.Bucket, space tinycloud.SpaceID, body []byte) {
	t.Helper()
	if has, err := s.Has(t.Context(), space, tinycloud.Sum(body)); has || err != nil {
		t.Errorf("Has = %v, %v", has, err)
	}
	if list := objects(t, b); len(list) != 0 {
		t.Errorf("%q in the bucket", list)
	}
}

// TestS3Killed kills the service in the middle of a put and of a get. What was acknowledged stays, what was not is not
// there, and all goes on without a restart of ours.
func TestS3Killed(t *testing.T) {
	t.Parallel()
	b := testservers.S3(t)
	space := blockstoretest.Space(t, "default")
	kept, body := blockstoretest.Body(1, 20<<20), blockstoretest.Body(2, 40<<20)
	begun := make(chan struct{}, 100)
	proxied := proxy(t, b, func(rp *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("partNumber") == "2" {
				select {
				case begun <- struct{}{}:
				default:
				}
			}
			rp.ServeHTTP(w, r)
		})
	})
	s := open(t, blockstore.Options{Dir: t.TempDir(), S3: proxied})
	if err := store(t.Context(), s, space, kept); err != nil {
		t.Fatal(err)
	}
	<-begun
	stored := make(chan error, 1)
	go func() { stored <- store(t.Context(), s, space, body) }()
	<-begun
	b.Kill9()
	if err := <-stored; !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("put while the service was killed: %v", err)
	}
	var ops errgroup.Group // each takes its time, trying again
	for what, do := range map[string]func() error{
		"Ping":   func() error { return s.Ping(t.Context()) },
		"Verify": func() error { return s.Verify(t.Context(), space, tinycloud.Sum(kept)) },
		"store":  func() error { return store(t.Context(), s, space, []byte("x")) },
		"Delete": func() error { return s.Delete(t.Context(), space, tinycloud.Sum(kept)) },
		"Walk":   func() error { return s.Walk(t.Context(), space, nil) },
		"Has":    func() error { _, err := s.Has(t.Context(), space, tinycloud.Sum(kept)); return err },
	} {
		ops.Go(func() error {
			if err := do(); !errors.Is(err, tinycloud.ErrUnavailable) || !strings.Contains(err.Error(), "storage.blocks.endpoint") {
				t.Errorf("%s without a service: %v", what, err)
			}
			return nil
		})
	}
	_ = ops.Wait() // they tell t
	b.Start()
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), space, tinycloud.Sum(kept)); err != nil {
		t.Error(err)
	}
	if list := objects(t, b); len(list) != 1 { // Ping aborted the upload
		t.Errorf("%q in the bucket", list)
	}
	if has, err := s.Has(t.Context(), space, tinycloud.Sum(body)); has || err != nil {
		t.Errorf("Has = %v, %v", has, err)
	}
	if err := store(t.Context(), s, space, body); err != nil {
		t.Error(err)
	}
	getWhileKilled(t, b, s, space, kept)
}

func getWhileKilled(t *testing.T, b *testservers.Bucket, s *blockstore.Store, space tinycloud.SpaceID, body []byte) {
	for _, restart := range []bool{true, false} {
		v, _, err := s.Open(t.Context(), space, tinycloud.Sum(body))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(body))
		if _, err := io.ReadFull(v, got[:1<<20]); err != nil {
			t.Fatal(err)
		}
		b.Kill9()
		if restart {
			b.Start()
		}
		n, err := io.ReadFull(v, got[1<<20:])
		if restart && (err != nil || !bytes.Equal(got, body)) {
			t.Errorf("read across a restart: %v", err)
		}
		if !restart && !errors.Is(err, tinycloud.ErrUnavailable) {
			t.Errorf("read %d bytes while the service was killed: %v", n, err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	b.Start()
	if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil {
		t.Error(err)
	}
}

// TestS3Stalls lets the service hang: requests end with an error after the stall time.
func TestS3Stalls(t *testing.T) {
	t.Parallel()
	b := testservers.S3(t)
	space := blockstoretest.Space(t, "default")
	s3 := settings(b)
	s3.Stall = 200 * time.Millisecond
	s := open(t, blockstore.Options{Dir: t.TempDir(), S3: s3})
	body := blockstoretest.Body(1, 20<<20)
	if err := store(t.Context(), s, space, body); err != nil {
		t.Fatal(err)
	}
	b.Pause()
	if _, err := s.Size(t.Context(), space, tinycloud.Sum(body)); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("Size: %v", err)
	}
	if err := store(t.Context(), s, space, blockstoretest.Body(2, 1<<20)); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	b.Resume()
	if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil {
		t.Error(err)
	}
}

// TestS3Restart finds the note of an upload that a killed process began, and ends that upload.
func TestS3Restart(t *testing.T) {
	t.Parallel()
	b, dir := servers.S3(t), t.TempDir()
	space := blockstoretest.Space(t, "default")
	var gone atomic.Bool // we are, once the first part is there: nothing reaches the service
	first := make(chan struct{})
	s3 := proxy(t, b, func(rp *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			part := r.URL.Query().Get("partNumber")
			if part == "2" {
				<-first
				gone.Store(true)
			}
			if gone.Load() {
				panic(http.ErrAbortHandler)
			}
			rp.ServeHTTP(w, r)
			if part == "1" {
				close(first)
			}
		})
	})
	s := open(t, blockstore.Options{Dir: dir, S3: s3})
	if err := store(t.Context(), s, space, blockstoretest.Body(1, 20<<20)); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	if list := objects(t, b); len(list) == 0 {
		t.Fatal("no part was uploaded")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, blockstore.Options{Dir: dir, S3: settings(b)})
	if list := objects(t, b); len(list) != 0 {
		t.Errorf("%q in the bucket", list)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("%q left", left)
	}
}

// cutting is an answer that breaks off after some bytes.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		return 0, io.ErrShortWrite
	}
	return c.ResponseWriter.Write(p)
}

// TestS3DeletedWhileRead deletes a value that is longer than all buffers on the way while it is read, in one stream or ahead of it:
// the stream goes on to the end. Once that breaks off the rest can't be had, and the reader is told so.
func TestS3DeletedWhileRead(t *testing.T) {
	t.Parallel()
	b := servers.S3(t)
	space := blockstoretest.Space(t, "default")
	body := blockstoretest.Body(1, 64<<20)
	var cut atomic.Bool
	var refused atomic.Int64
	for _, ahead := range []bool{false, true} {
		s3 := proxy(t, b, func(rp *httputil.ReverseProxy) http.Handler {
			rp.ModifyResponse = func(r *http.Response) error {
				if r.StatusCode == http.StatusNotFound {
					refused.Add(1)
				}
				return nil
			}
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet && cut.Load() {
					w = &cutting{w, len(body) / 2}
				}
				rp.ServeHTTP(w, r)
			})
		})
		if ahead {
			s3.ReadAhead()
		}
		s := open(t, blockstore.Options{Dir: t.TempDir(), S3: s3})
		for _, breaks := range []bool{false, true} {
			cut.Store(false)
			if err := store(t.Context(), s, space, body); err != nil {
				t.Fatal(err)
			}
			cut.Store(breaks)
			v, _, err := s.Open(t.Context(), space, tinycloud.Sum(body))
			if err != nil {
				t.Fatal(err)
			}
			const before = 9 << 20 // parts were asked for, and more will be
			got := make([]byte, len(body))
			if _, err := io.ReadFull(v, got[:before]); err != nil {
				t.Fatal(err)
			}
			if err := s.Delete(t.Context(), space, tinycloud.Sum(body)); err != nil {
				t.Fatal(err)
			}
			refused.Store(0)
			n, err := io.ReadFull(v, got[before:])
			switch n += before; {
			case !bytes.Equal(got[:n], body[:n]):
				t.Errorf("ahead %v: other bytes than the value's, %v", ahead, err)
			case !breaks && err != nil:
				t.Errorf("ahead %v: %d bytes of a value deleted while it was read: %v", ahead, n, err)
			case breaks && !errors.Is(err, tinycloud.ErrNotFound):
				t.Errorf("ahead %v: %d bytes of a value deleted before its way broke: %v", ahead, n, err)
			}
			if (ahead || breaks) && refused.Load() == 0 {
				t.Errorf("ahead %v, the way breaks %v: it was not asked for when it was gone", ahead, breaks)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
