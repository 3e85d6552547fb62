package blockstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

func settings(b *testservers.Bucket) *blockstore.S3 {
	return blockstore.S3FromEnv(b.Endpoint, b.Name, func(name string) string {
		return map[string]string{
			"AWS_ACCESS_KEY_ID": b.AccessKey, "AWS_SECRET_ACCESS_KEY": b.SecretKey, "AWS_DEFAULT_REGION": b.Region,
		}[name]
	})
}

// objects returns what is in a bucket, and of uploads that were not finished.
func objects(t *testing.T, b *testservers.Bucket) (files []string) {
	t.Helper()
	err := filepath.WalkDir(b.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, b.Dir()+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// proxy sends requests on to a service, through what a test makes of them.
func proxy(t *testing.T, b *testservers.Bucket, change func(*httputil.ReverseProxy) http.Handler) *blockstore.S3 {
	t.Helper()
	to, err := url.Parse(b.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	rp := &httputil.ReverseProxy{
		// The Host that was signed is sent on.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = to.Scheme, to.Host, r.In.Host
		},
		Transport:    tr,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	srv := httptest.NewServer(change(rp))
	t.Cleanup(srv.Close)
	s := settings(b)
	s.Endpoint = srv.URL
	return s
}

// TestS3Key checks the key on the wire and in the bucket (docs/protocol.md, "Values").
func TestS3Key(t *testing.T) {
	b := servers.S3(t)
	var puts atomic.Pointer[string]
	s := open(t, blockstore.Options{Dir: t.TempDir(), S3: proxy(t, b, func(rp *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				puts.Store(&r.RequestURI)
			}
			rp.ServeHTTP(w, r)
		})
	})})
	if err := store(t.Context(), s, blockstoretest.Space(t, "default"), nil); err != nil {
		t.Fatal(err)
	}
	const owner, name = "0x7BD63AA37326a64d458559F44432103e3d6eEDE9", "rxNJufX5oaagQE3qNtzJSZvLJcmtwRK3zJqTyuQfMmI="
	want := "/" + b.Name + "/tinycloud%3Apkh%3Aeip155%3A1%3A" + owner + "%3Adefault/" + strings.ReplaceAll(name, "=", "%3D")
	if got := puts.Load(); got == nil || *got != want {
		t.Errorf("PUT %v, want %s", got, want)
	}
	if d := cmp.Diff([]string{"tinycloud:pkh:eip155:1:" + owner + ":default/" + name}, objects(t, b)); d != "" {
		t.Error(d)
	}
}

func TestS3OpenRefuses(t *testing.T) {
	t.Parallel()
	b := servers.S3(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for _, tt := range []struct {
		name   string
		change func(*blockstore.S3)
		class  error
		want   []string
	}{
		{"no bucket", func(s *blockstore.S3) { s.Bucket = "elsewhere" }, tinycloud.ErrUnavailable, []string{"storage.blocks.bucket", "elsewhere", "NoSuchBucket"}},
		{"wrong secret", func(s *blockstore.S3) { s.SecretKey = "wrong" }, tinycloud.ErrUnavailable, []string{"AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"}},
		{"unknown key", func(s *blockstore.S3) { s.AccessKey = "nobody" }, tinycloud.ErrUnavailable, []string{"AWS_ACCESS_KEY_ID"}},
		{"no key", func(s *blockstore.S3) { s.AccessKey = "" }, tinycloud.ErrInvalid, []string{"AWS_ACCESS_KEY_ID"}},
		{"no secret", func(s *blockstore.S3) { s.SecretKey = "" }, tinycloud.ErrInvalid, []string{"AWS_SECRET_ACCESS_KEY"}},
		{"empty bucket name", func(s *blockstore.S3) { s.Bucket = "" }, tinycloud.ErrInvalid, []string{"storage.blocks.bucket"}},
		{"endpoint with a path", func(s *blockstore.S3) { s.Endpoint += "/s3" }, tinycloud.ErrInvalid, []string{"storage.blocks.endpoint"}},
		{"endpoint down", func(s *blockstore.S3) { s.Endpoint = closed }, tinycloud.ErrUnavailable, []string{"storage.blocks.endpoint", closed, "refused"}},
		{"endpoint silent", func(s *blockstore.S3) { s.Endpoint = "http://" + silent.Addr().String() }, tinycloud.ErrUnavailable, []string{"storage.blocks.endpoint", "deadline exceeded"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s3 := settings(b)
			tt.change(s3)
			begin := time.Now()
			s, err := blockstore.Open(t.Context(), blockstore.Options{Dir: t.TempDir(), S3: s3})
			if err == nil {
				t.Fatal(errors.Join(errors.New("opened"), s.Close()))
			}
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("took %s", took)
			}
			if !errors.Is(err, tt.class) {
				t.Errorf("%v is not of class %v", err, tt.class)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
			if s3.SecretKey != "" && strings.Contains(err.Error()+fmt.Sprintf("%v %+v %#v %s", s3, *s3, *s3, s3.LogValue()), s3.SecretKey) {
				t.Errorf("the secret is told: %v", err)
			}
		})
	}
}

// zeros is a long body that is nowhere.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	return int(n), nil
}

// TestS3Large takes a value up and down again in parts, without holding it in memory.
func TestS3Large(t *testing.T) {
	const size = 256 << 20
	b, dir := servers.S3(t), t.TempDir()
	space := blockstoretest.Space(t, "default")
	s := open(t, blockstore.Options{Dir: dir, S3: settings(b)})
	var most atomic.Uint64
	measure := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most.Store(max(most.Load(), m.HeapAlloc))
	}
	runtime.GC()
	measure()
	before := most.Load()
	done := make(chan struct{})
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				measure()
			}
		}
	}()
	st, err := s.Stage(t.Context(), &zeros{size}, size)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Commit(t.Context(), space); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), space, st.Hash()); err != nil {
		t.Error(err)
	}
	close(done)
	<-sampled
	if grown := int64(most.Load()) - int64(before); grown > 64<<20 {
		t.Errorf("heap grew by %d MiB for a value of %d MiB", grown>>20, size>>20)
	} else {
		t.Logf("heap grew by %d MiB", grown>>20)
	}
	if list := objects(t, b); len(list) != 1 {
		t.Errorf("%q in the bucket", list)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("%q left", left)
	}
}

// TestS3Shared has several processes on one bucket: each serves what another stored, whole and by chunk.
func TestS3Shared(t *testing.T) {
	b := servers.S3(t)
	space, other := blockstoretest.Space(t, "default"), blockstoretest.Space(t, "other")
	one := open(t, blockstore.Options{Dir: t.TempDir(), S3: settings(b)})
	two := open(t, blockstore.Options{Dir: t.TempDir(), S3: settings(b)})
	for _, s := range []*blockstore.Store{one, two} {
		if err := s.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	body := blockstoretest.Body(1, 3*blockstore.ChunkSize+5)
	hash, m, err := blockstore.BuildManifest(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := store(t.Context(), one, space, body); err != nil {
		t.Fatal(err)
	}
	if has, err := two.Has(t.Context(), space, hash); !has || err != nil {
		t.Errorf("Has = %v, %v", has, err)
	}
	for i, link := range m.Links { // nobody asked for its manifest before
		blk, err := two.Blocks(space).Get(t.Context(), link.CID(cid.Raw))
		if err != nil || !bytes.Equal(blk.RawData(), body[i*blockstore.ChunkSize:min(len(body), (i+1)*blockstore.ChunkSize)]) {
			t.Errorf("chunk %d: %v", i, err)
		}
		if has, err := two.Blocks(other).Has(t.Context(), link.CID(cid.Raw)); has || err != nil {
			t.Errorf("chunk %d in another Space: %v, %v", i, has, err)
		}
	}
	if _, err := two.Blocks(space).Get(t.Context(), m.CID()); err != nil {
		t.Errorf("manifest block: %v", err)
	}
	again := blockstoretest.Body(2, 2*blockstore.ChunkSize)
	if err := store(t.Context(), two, space, again); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Manifest(t.Context(), space, tinycloud.Sum(again)); err != nil {
		t.Error(err)
	}
	if _, err := one.Blocks(space).Get(t.Context(), tinycloud.Sum(again[:blockstore.ChunkSize]).CID(cid.Raw)); err != nil {
		t.Error(err)
	}
	if err := one.Delete(t.Context(), space, hash); err != nil {
		t.Fatal(err)
	}
	if has, err := two.Blocks(space).Has(t.Context(), m.Links[0].CID(cid.Raw)); has || err != nil {
		t.Errorf("chunk of a deleted value: %v, %v", has, err)
	}
	// The index is a cache: without it all is served again.
	dir := t.TempDir()
	three := open(t, blockstore.Options{Dir: dir, S3: settings(b)})
	if err := three.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := three.Blocks(space).Get(t.Context(), tinycloud.Sum(again[:blockstore.ChunkSize]).CID(cid.Raw)); err != nil {
		t.Error(err)
	}
}

// TestS3Forged reads an object with other bytes than its name says.
func TestS3Forged(t *testing.T) {
	b := servers.S3(t)
	space := blockstoretest.Space(t, "default")
	s := open(t, blockstore.Options{Dir: t.TempDir(), S3: settings(b)})
	body := []byte("right")
	if err := store(t.Context(), s, space, body); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(b.Dir(), objects(t, b)[0])
	if err := os.WriteFile(file, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); !errors.Is(err, tinycloud.ErrForged) {
		t.Errorf("Verify: %v", err)
	}
	if err := store(t.Context(), s, space, body); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil {
		t.Errorf("stored again: %v", err)
	}
}
