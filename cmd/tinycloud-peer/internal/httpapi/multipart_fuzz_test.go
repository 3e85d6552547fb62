package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

// counted is a staged body that says when it is dropped.
type counted struct {
	body []byte
	open *int
}

func (c counted) Hash() tinycloud.Hash                            { return tinycloud.Sum(c.body) }
func (c counted) Size() int64                                     { return int64(len(c.body)) }
func (c counted) Bytes() ([]byte, bool)                           { return c.body, true }
func (c counted) Commit(context.Context, tinycloud.SpaceID) error { return nil }
func (c counted) Discard()                                        { *c.open-- }

// FuzzBatch reads bodies of batches. What is taken is one value for each key, no more bytes than came and no more than
// are allowed; a refusal is the client's own doing; nothing stays staged.
func FuzzBatch(f *testing.F) {
	const good = formType
	f.Add(good, formPart("a", "", "one")+formPart("b%2Fc", "Content-Type: text/plain\r\n", "two")+formEnd)
	f.Add(good, formPart("a", "", "one")+formPart("a", "", "again")+formEnd)
	f.Add(good, formPart("a", "", "one")+formPart("none", "", "x")+formEnd)
	f.Add(good, formPart("a", "", "ends early"))
	f.Add(good, formPart("a", "X: "+strings.Repeat("y", 4096)+"\r\n", strings.Repeat("z", 9000))+formPart("b/c", "", "")+formEnd)
	f.Add(good, "--B\r\n\r\nno name\r\n"+formEnd)
	f.Add(good, "--B\r\nContent-Disposition: form-data; name*=utf-8''a\r\n\r\nx\r\n--B\r\nContent-Disposition: form-data; name=\"b/c\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41\r\n"+formEnd)
	f.Add("multipart/mixed; boundary=\"--\"", "----\r\n\r\n\r\n------")
	f.Add("multipart/form-data", formEnd)
	f.Add("text/plain; boundary", "")
	const most = 8 << 10
	f.Fuzz(func(t *testing.T, contentType, body string) {
		open := 0
		stage := func(_ context.Context, r io.Reader, limit int64) (httpapi.Staged, error) {
			b, err := io.ReadAll(io.LimitReader(r, limit+1))
			if err != nil {
				return nil, err
			}
			if int64(len(b)) > limit {
				return nil, fmt.Errorf("too long: %w", tinycloud.ErrTooLarge)
			}
			open++
			return counted{b, &open}, nil
		}
		sizes, err := httpapi.ReadBatch(contentType, []byte(body), []string{"a", "b/c"}, stage, most)
		if open != 0 {
			t.Errorf("%d bodies stay staged", open)
		}
		if err != nil {
			if !errors.Is(err, tinycloud.ErrInvalid) && !errors.Is(err, tinycloud.ErrTooLarge) {
				t.Errorf("%q %q: %v", contentType, body, err)
			}
			return
		}
		if total := sizes["a"] + sizes["b/c"]; len(sizes) != 2 || total > int64(min(len(body), most)) {
			t.Errorf("%q %q: %v", contentType, body, sizes)
		}
	})
}
