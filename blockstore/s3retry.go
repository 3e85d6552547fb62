package blockstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

const (
	maxTries  = 5
	firstWait = 100 * time.Millisecond // doubled each time
)

// retry calls fn until it succeeds, at most maxTries times, each with a deadline of its own; 0 is none.
func (b *bucket) retry(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	for tries, d := 1, firstWait; ; tries, d = tries+1, d*2 {
		err := attempt(ctx, limit, fn)
		if err == nil || tries >= maxTries || !transient(err) || !pause(ctx, d) {
			return err
		}
	}
}

func attempt(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return fn(ctx)
}

// pause waits, half to all of the time, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	return wait.For(ctx, d/2+rand.N(d/2))
}

// transient reports whether the same request may succeed later: the service was out of reach, or said so.
func transient(err error) bool {
	var res minio.ErrorResponse
	if !errors.As(err, &res) {
		return true
	}
	switch res.Code {
	case "RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable":
		return true
	}
	return res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout
}

// missing tells an object that isn't there from a service that fails.
func (b *bucket) missing(hash tinycloud.Hash, err error) error {
	if err == nil {
		return nil
	}
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return absent(hash)
	}
	return b.fault(err)
}

// fault gives an error the class and the setting that an operator has to look at.
func (b *bucket) fault(err error) error {
	if errors.Is(err, tinycloud.ErrUnavailable) || errors.Is(err, tinycloud.ErrNotFound) {
		return err // it has both already
	}
	setting := fmt.Sprintf("storage.blocks.endpoint %q, bucket %q", b.o.Endpoint, b.o.Bucket)
	var res minio.ErrorResponse
	if errors.As(err, &res) {
		switch res.Code {
		case minio.NoSuchBucket, "InvalidBucketName":
			setting = fmt.Sprintf("storage.blocks.bucket %q at %s", b.o.Bucket, b.o.Endpoint)
		case "InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "Forbidden":
			setting = fmt.Sprintf("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY for storage.blocks.bucket %q at %s", b.o.Bucket, b.o.Endpoint)
		case "AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect":
			setting = fmt.Sprintf("AWS_REGION %q for storage.blocks.bucket %q at %s", b.o.Region, b.o.Bucket, b.o.Endpoint)
		}
		err = fmt.Errorf("%s: %w", res.Code, err)
	}
	return fmt.Errorf("%s: %w: %w", setting, err, tinycloud.ErrUnavailable)
}
