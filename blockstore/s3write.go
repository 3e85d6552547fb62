package blockstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const (
	partSize     = 16 << 20 // a longer body is uploaded in parts
	maxParts     = 10_000   // S3's limit
	partsAtOnce  = 4        // parts of one body on their way
	uploadPrefix = "upload-"
	abortTime    = 10 * time.Second
)

// put uploads a body. An object appears when it is complete, and then it is durable.
func (b *bucket) put(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, body body) error {
	var err error
	if body.Size() > partSize {
		err = b.putParts(ctx, key(space, hash), body)
	} else {
		err = b.putWhole(ctx, key(space, hash), body)
	}
	if err != nil {
		return b.fault(err)
	}
	return nil
}

func (b *bucket) putWhole(ctx context.Context, name string, body body) error {
	var o minio.PutObjectOptions
	digest := ""
	if body.Size() == 0 {
		// Signed in chunks, an empty body would be longer than announced: the rest would go before the next request.
		digest, o.DisableContentSha256 = fmt.Sprintf("%x", sha256.Sum256(nil)), true
	}
	return b.retry(ctx, 0, func(ctx context.Context) error {
		_, err := b.core.PutObject(ctx, b.o.Bucket, name, io.NewSectionReader(body, 0, body.Size()), body.Size(), "", digest, o)
		return err
	})
}

// putParts uploads a body in parts, and aborts the upload when it can't be completed, so that none stay.
func (b *bucket) putParts(ctx context.Context, name string, body body) error {
	b.abortLeftovers(ctx)
	u, err := b.begin(ctx, name)
	if err != nil {
		return err
	}
	if err := b.uploadParts(ctx, u, body); err != nil {
		if aborted := b.abort(ctx, u); aborted != nil {
			b.log.WarnContext(ctx, "could not abort upload; tried again later", "error", aborted)
		}
		return err
	}
	return b.uploads.remove(u)
}

// begin notes an upload before its first part.
func (b *bucket) begin(ctx context.Context, name string) (u upload, err error) {
	u = upload{Bucket: b.o.Bucket, Key: name}
	// Not tried again: an answer that was lost has begun an upload we don't know of.
	if u.ID, err = b.core.NewMultipartUpload(ctx, b.o.Bucket, name, minio.PutObjectOptions{}); err != nil {
		return u, err
	}
	if u.file, err = b.uploads.add(u); err != nil {
		return u, errors.Join(err, b.abort(ctx, u))
	}
	return u, nil
}

func (b *bucket) uploadParts(ctx context.Context, u upload, body body) error {
	size := max(partSize, (body.Size()+maxParts-1)/maxParts)
	parts := make([]minio.CompletePart, (body.Size()+size-1)/size)
	var group errgroup.Group // what is on its way arrives before an upload is aborted, or its parts might outlive it
	var failed atomic.Bool
	group.SetLimit(partsAtOnce)
	for i := range parts {
		at := int64(i) * size
		length := min(size, body.Size()-at)
		group.Go(func() error {
			if failed.Load() {
				return nil
			}
			err := b.retry(ctx, 0, func(ctx context.Context) error {
				p, err := b.core.PutObjectPart(ctx, u.Bucket, u.Key, u.ID, i+1, io.NewSectionReader(body, at, length), length, minio.PutObjectPartOptions{})
				parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: p.ETag}
				return err
			})
			if err != nil {
				failed.Store(true)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	err := b.retry(ctx, 0, func(ctx context.Context) error {
		_, err := b.core.CompleteMultipartUpload(ctx, u.Bucket, u.Key, u.ID, parts, minio.PutObjectOptions{})
		return err
	})
	if minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
		return err
	}
	// An answer was lost: then it is complete, and the whole is there.
	info, statErr := b.core.StatObject(ctx, u.Bucket, u.Key, minio.StatObjectOptions{})
	if statErr != nil || info.Size != body.Size() {
		return errors.Join(err, statErr)
	}
	return nil
}

// abort ends an upload whatever became of the request, and forgets it if the service says it is gone.
func (b *bucket) abort(ctx context.Context, u upload) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	err := b.retry(ctx, 0, func(ctx context.Context) error {
		return b.core.AbortMultipartUpload(ctx, u.Bucket, u.Key, u.ID)
	})
	if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
		b.uploads.abandon(u)
		return b.fault(err)
	}
	return b.uploads.remove(u)
}

// abortLeftovers aborts what could not be when it failed, and what a killed process left.
func (b *bucket) abortLeftovers(ctx context.Context) {
	for _, u := range b.uploads.takeAbandoned() {
		if ctx.Err() != nil {
			b.uploads.abandon(u)
			continue
		}
		if err := b.abort(ctx, u); err != nil {
			b.log.WarnContext(ctx, "could not abort upload; tried again later", "error", err)
		}
	}
}

// upload is one in parts. It is noted in a file of the staging directory until it ends.
type upload struct {
	Bucket, Key, ID string
	file            string
}

// openUploads finds the uploads that an earlier process noted; all of them are abandoned. Its directory is this
// process's own.
func openUploads(o Options) (*uploads, error) {
	x := &uploads{fs: o.FS, dir: filepath.Join(o.Dir, stagingDir)}
	err := eachEntry(x.dir, func(e fs.DirEntry) error {
		if !strings.HasPrefix(e.Name(), uploadPrefix) {
			return nil
		}
		u := upload{file: filepath.Join(x.dir, e.Name())}
		text, err := os.ReadFile(u.file)
		if err != nil {
			return err
		}
		// One that was being written when the process was killed can't be read, or is another bucket's.
		if json.Unmarshal(text, &u) != nil || u.ID == "" || u.Bucket != o.S3.Bucket {
			return x.fs.Remove(u.file)
		}
		x.abandon(u)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w: %w", o.setting(), o.Dir, err, tinycloud.ErrUnavailable)
	}
	return x, nil
}

func (x *uploads) add(u upload) (path string, err error) {
	text, err := json.Marshal(u)
	if err != nil {
		return "", err
	}
	path = filepath.Join(x.dir, uploadPrefix+rand.Text())
	f, err := x.fs.OpenFile(path, true)
	if err != nil {
		return "", err
	}
	return path, errors.Join(writeAll(f, text), f.Close())
}

func (x *uploads) remove(u upload) error {
	if u.file == "" {
		return nil
	}
	if err := x.fs.Remove(u.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// uploads is what is known of uploads in parts.
type uploads struct {
	fs  FS
	dir string

	mu        sync.Mutex
	abandoned []upload // to be aborted
}

// abandon keeps an upload for a later abort. A note that is forgotten here is found at the next start.
func (x *uploads) abandon(u upload) {
	const most = 10_000
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.abandoned) < most {
		x.abandoned = append(x.abandoned, u)
	}
}

func (x *uploads) takeAbandoned() []upload {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := x.abandoned
	x.abandoned = nil
	return list
}
