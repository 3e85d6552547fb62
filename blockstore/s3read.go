package blockstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/minio/minio-go/v7"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// get asks for the bytes of an object from at on, length of them or, when negative, all.
func (b *bucket) get(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, at, length int64) (io.ReadCloser, int64, error) {
	var o minio.GetObjectOptions
	if at > 0 || length >= 0 {
		end := int64(0) // minio's word for the end of the object
		if length >= 0 {
			end = at + length - 1
		}
		if err := o.SetRange(at, end); err != nil {
			return nil, 0, err
		}
	}
	body, info, _, err := b.core.GetObject(ctx, b.o.Bucket, key(space, hash), o)
	return body, info.Size, err
}

func (b *bucket) open(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (content, int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	o := &object{cancel: cancel, missing: func(err error) error { return b.missing(hash, err) }}
	o.ahead.readers, o.ahead.eager = b.ahead, b.o.eager
	o.get = func(at, length int64) (io.ReadCloser, int64, error) { return b.get(ctx, space, hash, at, length) }
	o.pause = func(wait time.Duration) bool { return pause(ctx, wait) }
	err := b.retry(ctx, 0, func(context.Context) (err error) {
		o.body, o.size, err = o.get(0, -1)
		return err
	})
	if err != nil {
		cancel()
		return nil, 0, b.missing(hash, err)
	}
	if o.size > copyBuffer {
		return o, o.size, nil
	}
	// A short one is here already: seeking in it shall cost nothing.
	defer cancel()
	data := make([]byte, o.size)
	if _, err := io.ReadFull(o, data); err != nil {
		return nil, 0, errors.Join(b.missing(hash, err), o.Close())
	}
	return sectionContent{io.NewSectionReader(bytes.NewReader(data), 0, o.size), io.NopCloser(nil)}, o.size, o.Close()
}

func (b *bucket) readAt(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, p []byte, at int64) error {
	if len(p) == 0 {
		_, err := b.size(ctx, space, hash)
		return err
	}
	err := b.retry(ctx, 0, func(ctx context.Context) error {
		body, _, err := b.get(ctx, space, hash, at, int64(len(p)))
		if err != nil {
			return err
		}
		_, err = io.ReadFull(body, p)
		return errors.Join(err, body.Close())
	})
	return b.missing(hash, err)
}

// object is an object open for reading. Reading on is one request, and others if that is slow; seeking begins another. A
// connection that breaks is replaced where it broke.
type object struct {
	get     func(at, length int64) (io.ReadCloser, int64, error)
	pause   func(time.Duration) bool
	missing func(error) error // gives an error its class
	cancel  context.CancelFunc
	size    int64
	at      int64         // where reading is
	body    io.ReadCloser // what comes from bodyAt on; nil when it has to be asked for
	bodyAt  int64         // at, or before what was read ahead
	ahead   ahead
}

func (o *object) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for tries, wait := 1, firstWait; ; tries, wait = tries+1, wait*2 {
		if o.at >= o.size {
			return 0, io.EOF
		}
		if o.stream() <= 0 {
			if n := o.take(p); n > 0 {
				return n, nil
			}
		}
		n, err := o.read(p)
		if n > 0 {
			return n, nil // an error will come again
		}
		if tries >= maxTries || !transient(err) || !o.pause(wait) {
			return 0, o.missing(err)
		}
	}
}

// read reads once from the stream, and drops a stream that broke.
func (o *object) read(p []byte) (n int, err error) {
	if o.body == nil {
		if o.body, _, err = o.get(o.at, -1); err != nil {
			o.body = nil
			return 0, err
		}
		o.bodyAt = o.at
	}
	if err := o.skip(); err != nil {
		o.drop()
		return 0, err
	}
	begin := time.Now()
	n, err = o.body.Read(p[:min(int64(len(p)), o.stream())])
	o.at += int64(n)
	o.bodyAt = o.at
	o.judge(n, time.Since(begin))
	if err != nil || n == 0 {
		o.drop()
	}
	if n == 0 && (err == nil || err == io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// skip passes over what was read ahead of the stream.
func (o *object) skip() error {
	if o.bodyAt == o.at {
		return nil
	}
	n, err := io.CopyN(io.Discard, o.body, o.at-o.bodyAt)
	o.bodyAt += n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (o *object) drop() {
	if o.body != nil {
		_ = o.body.Close() // nothing more is read from it
		o.body = nil
	}
}

func (o *object) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 {
		return 0, fmt.Errorf("offset %d: %w", at, tinycloud.ErrInvalid)
	}
	if at >= o.size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), o.size-at)
	if want == 0 {
		return 0, nil
	}
	done := int64(0)
	for tries, wait := 1, firstWait; ; tries, wait = tries+1, wait*2 {
		body, _, err := o.get(at+done, want-done)
		if err == nil {
			var n int
			n, err = io.ReadFull(body, p[done:want])
			done += int64(n)
			err = errors.Join(err, body.Close())
		}
		switch {
		case done == want && want < int64(len(p)):
			return int(done), io.EOF
		case done == want:
			return int(done), nil
		case tries >= maxTries || !transient(err) || !o.pause(wait):
			return int(done), o.missing(err)
		}
	}
}

func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += o.at
	case io.SeekEnd:
		offset += o.size
	default:
		return 0, fmt.Errorf("whence %d: %w", whence, tinycloud.ErrInvalid)
	}
	if offset < 0 {
		return 0, fmt.Errorf("offset %d: %w", offset, tinycloud.ErrInvalid)
	}

	if offset != o.at {
		o.drop()
		o.at, o.ahead.parts = offset, nil
	}
	return offset, nil
}

func (o *object) Close() error {
	o.drop()
	o.cancel()
	o.ahead.end()
	return nil
}
