package blockstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const (
	awsEndpoint  = "https://s3.amazonaws.com"
	startTime    = 12 * time.Second // of trying the bucket when a store is opened
	startAttempt = 4 * time.Second
	dialTime     = 4 * time.Second
	defaultStall = 30 * time.Second
	idleConns    = 64
)

// S3 says which bucket holds the values, and as whom to use it.
type S3 struct {
	Endpoint     string // storage.blocks.endpoint, a URL; addressed path-style. "" is AWS
	Bucket       string // storage.blocks.bucket; must exist
	Region       string // AWS_REGION or AWS_DEFAULT_REGION; "" asks the service
	AccessKey    string // AWS_ACCESS_KEY_ID
	SecretKey    string // AWS_SECRET_ACCESS_KEY
	SessionToken string // AWS_SESSION_TOKEN; may be empty
	// Stall is how long a connection may be without progress. 0 means 30 s.
	Stall time.Duration

	eager bool // tests: all long values are read ahead
}

// S3FromEnv takes credentials and region from the AWS_* variables.
func S3FromEnv(endpoint, bucket string, getenv func(string) string) *S3 {
	c := &S3{
		Endpoint: endpoint, Bucket: bucket, Region: getenv("AWS_REGION"), AccessKey: getenv("AWS_ACCESS_KEY_ID"),
		SecretKey: getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: getenv("AWS_SESSION_TOKEN"),
	}
	if c.Region == "" {
		c.Region = getenv("AWS_DEFAULT_REGION")
	}
	return c
}

// Format keeps the secrets from every verb.
func (c S3) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "s3 bucket "+c.Bucket+" at "+c.Endpoint) // fmt has no place for an error
}

// LogValue keeps the secrets from slog.
func (c S3) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// bucket is the backend that keeps each value in an object of an S3 service (docs/protocol.md, "Values").
type bucket struct {
	core      minio.Core
	transport *http.Transport
	o         S3
	log       *slog.Logger
	uploads   *uploads
	ahead     chan struct{} // holds one for each object that is read ahead
}

func openBucket(ctx context.Context, o Options) (*bucket, error) {
	b := &bucket{o: *o.S3, log: o.Log, ahead: make(chan struct{}, aheadReaders)}
	if b.o.Endpoint == "" {
		b.o.Endpoint = awsEndpoint
	}
	if b.o.Stall == 0 {
		b.o.Stall = defaultStall
	}
	if b.o.Bucket == "" {
		return nil, fmt.Errorf("storage.blocks.bucket is empty: %w", tinycloud.ErrInvalid)
	}
	if b.o.AccessKey == "" || b.o.SecretKey == "" {
		return nil, fmt.Errorf("storage.blocks.type S3 needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment: %w", tinycloud.ErrInvalid)
	}
	endpoint, err := url.Parse(b.o.Endpoint)
	if err != nil || endpoint.Host == "" || endpoint.User != nil {
		return nil, fmt.Errorf("storage.blocks.endpoint %q is not a URL of a service: %w", b.o.Endpoint, tinycloud.ErrInvalid)
	}
	if strings.Trim(endpoint.Path, "/") != "" {
		return nil, fmt.Errorf("storage.blocks.endpoint %q: has a path: %w", b.o.Endpoint, tinycloud.ErrInvalid)
	}
	b.transport = transport(b.o.Stall)
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewStaticV4(b.o.AccessKey, b.o.SecretKey, b.o.SessionToken), Secure: endpoint.Scheme == "https",
		Transport: b.transport, Region: b.o.Region, BucketLookup: minio.BucketLookupPath,
		MaxRetries: 1, // we do that
	})
	if err != nil {
		return nil, fmt.Errorf("storage.blocks.endpoint %q: %w: %w", b.o.Endpoint, err, tinycloud.ErrInvalid)
	}
	b.core = minio.Core{Client: client}
	if err := b.try(ctx); err != nil {
		b.close()
		return nil, err
	}
	if b.uploads, err = openUploads(o); err != nil {
		b.close()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	b.abortLeftovers(ctx)
	return b, nil
}

// transport gives up on connections that make no progress. There is no deadline for a request as a whole: a
// value may be long, and its reader slow.
func transport(stall time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTime, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{c, stall}, nil
		},
		TLSHandshakeTimeout: dialTime, ResponseHeaderTimeout: stall, IdleConnTimeout: stall / 2,
		MaxIdleConns: idleConns, MaxIdleConnsPerHost: idleConns, DisableCompression: true,
	}
}

// stallConn fails when neither direction moves.
type stallConn struct {
	net.Conn
	stall time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write extends the deadline of a Read that waits for the answer, too.
func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// try finds out now, not at the first request, that the bucket can't be used.
func (b *bucket) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var last error
	for wait := firstWait; ; wait *= 2 {
		attempt, done := context.WithTimeout(ctx, startAttempt)
		err := b.peek(attempt)
		done()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // the end of our patience is not the cause
			last = err
		}
		if !transient(err) || !pause(ctx, wait) || wait > 2*time.Second {
			return b.fault(last)
		}
	}
}

// peek asks for one key: the answer tells whether service, bucket and credentials are right.
func (b *bucket) peek(ctx context.Context) error {
	for o := range b.core.ListObjectsIter(ctx, b.o.Bucket, minio.ListObjectsOptions{MaxKeys: 1}) {
		return o.Err
	}
	return ctx.Err()
}

func (b *bucket) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startAttempt)
	defer cancel()
	if err := b.peek(ctx); err != nil {
		return b.fault(err)
	}
	b.abortLeftovers(ctx)
	return nil
}

func (b *bucket) close() { b.transport.CloseIdleConnections() }

func (b *bucket) check(space tinycloud.SpaceID) error {
	if space.IsZero() {
		return fmt.Errorf("no space: %w", tinycloud.ErrInvalid)
	}
	return nil
}

func (b *bucket) confirm(tinycloud.SpaceID, tinycloud.Hash) error { return nil } // an object that is seen is durable

// key is that of docs/protocol.md, "Values".
func key(space tinycloud.SpaceID, hash tinycloud.Hash) string {
	return space.String() + "/" + fileName(hash)
}

func (b *bucket) size(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (int64, error) {
	info, err := b.stat(ctx, space, hash)
	return info.Size, err
}

func (b *bucket) modified(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (time.Time, error) {
	info, err := b.stat(ctx, space, hash)
	return info.LastModified, err
}

func (b *bucket) stat(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (info minio.ObjectInfo, err error) {
	err = b.retry(ctx, b.o.Stall, func(ctx context.Context) (err error) {
		info, err = b.core.StatObject(ctx, b.o.Bucket, key(space, hash), minio.StatObjectOptions{})
		return err
	})
	return info, b.missing(hash, err)
}

func (b *bucket) remove(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) error {
	err := b.retry(ctx, b.o.Stall, func(ctx context.Context) error {
		return b.core.RemoveObject(ctx, b.o.Bucket, key(space, hash), minio.RemoveObjectOptions{})
	})
	if err = b.missing(hash, err); errors.Is(err, tinycloud.ErrNotFound) {
		return nil
	}
	return err
}

func (b *bucket) walk(ctx context.Context, space tinycloud.SpaceID, fn func(tinycloud.Hash, int64) error) error {
	prefix := space.String() + "/"
	return b.list(ctx, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}, func(o minio.ObjectInfo) error {
		if hash, ok := parseFileName(strings.TrimPrefix(o.Key, prefix)); ok {
			return fn(hash, o.Size)
		}
		return nil
	})
}

func (b *bucket) spaces(ctx context.Context, fn func(tinycloud.SpaceID) error) error {
	return b.list(ctx, minio.ListObjectsOptions{}, func(o minio.ObjectInfo) error {
		name, ok := strings.CutSuffix(o.Key, "/")
		if space, err := tinycloud.ParseSpaceID(name); ok && err == nil && space.String() == name {
			return fn(space)
		}
		return nil
	})
}

// list calls fn for what a listing has, each once, until it returns an error. A page that can't be had is asked for
// again.
func (b *bucket) list(ctx context.Context, o minio.ListObjectsOptions, fn func(minio.ObjectInfo) error) error {
	last := ""
	for tries, wait := 1, firstWait; ; tries, wait = tries+1, wait*2 {
		var failed error
		for info := range b.core.ListObjectsIter(ctx, b.o.Bucket, o) {
			if failed = info.Err; failed != nil {
				break
			}
			if info.Key <= last {
				continue // seen before the failure
			}
			last, tries, wait = info.Key, 0, firstWait
			if err := fn(info); err != nil {
				return err
			}
		}
		if failed == nil {
			failed = ctx.Err()
		}
		if failed == nil {
			return nil
		}
		if tries >= maxTries || !transient(failed) || !pause(ctx, wait) {
			return b.fault(failed)
		}
		o.StartAfter = last
	}
}
