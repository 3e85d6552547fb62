//go:build unix

package testservers

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Bucket is an empty bucket of an S3 service.
type Bucket struct {
	Server
	Endpoint string // URL, as storage.blocks.endpoint takes it
	Name     string // as storage.blocks.bucket takes it
	// The credentials, which the service checks.
	Region, AccessKey, SecretKey string
}

// S3 starts an S3 service for this test alone.
func S3(t testing.TB) *Bucket {
	t.Helper()
	return bucket(t, own(t, s3Engine))
}

func s3Engine() (engine, error) { return findS3() }

// New returns another empty bucket of the same service.
func (b *Bucket) New() *Bucket {
	b.t.Helper()
	return bucket(b.t, b.p)
}

// Dir is where the service keeps the bucket: objects are files there, what is unfinished is below .sgwtmp.
func (b *Bucket) Dir() string { return filepath.Join(s3Root(b.p.dir), b.Name) }

// bucket makes a bucket of a test: a directory is one.
func bucket(t testing.TB, p *process) *Bucket {
	t.Helper()
	b := &Bucket{Server: Server{Addr: address(p.port), t: t, p: p}, Region: s3Region, AccessKey: admin, SecretKey: password}
	b.Endpoint, b.Name = "http://"+b.Addr, "t"+strings.ToLower(rand.Text())
	b.must(os.Mkdir(b.Dir(), 0o700))
	return b
}

const s3Region = "eu-test-1"

type s3 struct{ program string }

func findS3() (s3, error) {
	path, err := built("versitygw", "the S3 service versitygw")
	return s3{path}, err
}

func s3Root(dir string) string { return filepath.Join(dir, "data") }

func (e s3) name() string { return "s3" }

func (e s3) prepare(_ context.Context, dir string) error { return os.Mkdir(s3Root(dir), 0o700) }

func (e s3) command(dir string, port int) *exec.Cmd {
	cmd := exec.Command(e.program, "--port", address(port), "--region", s3Region, "--keep-alive", "--quiet", "posix", s3Root(dir))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+admin, "ROOT_SECRET_ACCESS_KEY="+password)
	cmd.Dir = dir
	return cmd
}

func (e s3) quit() syscall.Signal { return syscall.SIGKILL } // all it has is in its directory

func (e s3) ping(ctx context.Context, port int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(port), nil)
	if err != nil {
		return err
	}
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode != http.StatusForbidden { // we sent no signature
		return fmt.Errorf("status %s", res.Status)
	}
	return nil
}
