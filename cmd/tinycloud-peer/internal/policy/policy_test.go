package policy_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"
	"golang.org/x/crypto/blake2b"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const spaceText = "tinycloud:pkh:eip155:1:0x7bC78e997A71263Eb87da609bB784b8FdD294af4:default"

func parse(t testing.TB, text string) tinycloud.SpaceID {
	t.Helper()
	space, err := tinycloud.ParseSpaceID(text)
	if err != nil {
		t.Fatal(err)
	}
	return space
}

// service is a real server whose answer a test changes.
type service struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
	paths  sync.Map
}

func serve(t *testing.T, answer http.HandlerFunc) *service {
	t.Helper()
	s := &service{}
	s.answer.Store(&answer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.paths.Store(r.Method+" "+r.URL.EscapedPath(), true)
		(*s.answer.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) answers(h http.HandlerFunc) { s.answer.Store(&h) }

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// silent says nothing until the client goes away.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func huge(w http.ResponseWriter, _ *http.Request) {
	chunk := []byte(strings.Repeat(" ", 1<<16))
	for range 1 << 10 {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func redirects(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

func cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, spaceText)
	panic(http.ErrAbortHandler)
}

type clock struct{ ms atomic.Int64 }

func (c *clock) now() time.Time          { return time.UnixMilli(1_800_000_000_000 + c.ms.Load()) }
func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

func options(t *testing.T, base string, c *clock) policy.Options {
	return policy.Options{URL: base, Now: c.now, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// nobody is the URL of a port that nothing listens on.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return "http://" + l.Addr().String()
}

func TestListCID(t *testing.T) {
	space := parse(t, spaceText)
	text := policy.ListCID(space)
	if text[0] != 'z' {
		t.Errorf("%s is not base58btc", text)
	}
	c, err := cid.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	digest := blake2b.Sum256([]byte(spaceText))
	want := append([]byte{0x01, 0x55, 0xa0, 0xe4, 0x02, 0x20}, digest[:]...)
	if string(c.Bytes()) != string(want) {
		t.Errorf("%x, want %x", c.Bytes(), want)
	}
}

func TestAllowlist(t *testing.T) {
	space := parse(t, spaceText)
	elsewhere := serve(t, says(200, spaceText))
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		class  error // nil: allowed
	}{
		"its id":                  {says(200, spaceText), nil},
		"with blanks":             {says(201, " "+spaceText+"\r\n"), nil},
		"a JSON string":           {says(200, `"`+spaceText+`"`+"\n"), nil},
		"the owner in lower case": {says(200, strings.ToLower(spaceText)), nil},
		"another id":              {says(200, strings.Replace(spaceText, "default", "other", 1)), tinycloud.ErrForbidden},
		"two ids":                 {says(200, spaceText+"\n"+spaceText), tinycloud.ErrForbidden},
		"nothing":                 {says(200, ""), tinycloud.ErrForbidden},
		"no id":                   {says(200, "true"), tinycloud.ErrForbidden},
		"half a string":           {says(200, `"`+spaceText), tinycloud.ErrForbidden},
		"not found":               {says(404, spaceText), tinycloud.ErrForbidden},
		"unauthorized":            {says(401, spaceText), tinycloud.ErrForbidden},
		"a redirect":              {redirects(elsewhere.URL), tinycloud.ErrForbidden},
		"a huge body":             {huge, tinycloud.ErrForbidden},
		"broken":                  {says(500, spaceText), tinycloud.ErrUnavailable},
		"overloaded":              {says(429, spaceText), tinycloud.ErrUnavailable},
		"cut off":                 {cut, tinycloud.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tt.answer)
			l := policy.NewAllowlist(options(t, s.URL+"/list/", &clock{}))
			defer l.Close()
			err := l.Allow(t.Context(), space)
			if !errors.Is(err, tt.class) || tt.class == nil && err != nil {
				t.Errorf("%v, want %v", err, tt.class)
			}
			if errors.Is(tt.class, tinycloud.ErrForbidden) && err.Error() != "Space not allowed" {
				t.Errorf("text %q", err)
			}
			if _, ok := s.paths.Load("GET /list/" + policy.ListCID(space)); !ok || s.asked.Load() != 1 {
				t.Errorf("asked %d times", s.asked.Load())
			}
		})
	}
	if elsewhere.asked.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestAllowlistOutOfReach(t *testing.T) {
	space := parse(t, spaceText)
	c := &clock{}
	l := policy.NewAllowlist(options(t, nobody(t), c))
	defer l.Close()
	if err := l.Allow(t.Context(), space); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Error(err)
	}
	if testing.Short() {
		return
	}
	s := serve(t, silent)
	slow := policy.NewAllowlist(options(t, s.URL, c))
	defer slow.Close()
	began := time.Now()
	if err := slow.Allow(t.Context(), space); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Error(err)
	}
	if took := time.Since(began); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("waited %s for a silent list", took)
	}
}

func TestAllowlistRemembers(t *testing.T) {
	space, c := parse(t, spaceText), &clock{}
	s := serve(t, says(404, ""))
	l := policy.NewAllowlist(options(t, s.URL, c))
	defer l.Close()
	for i, step := range []struct {
		after  time.Duration
		answer http.HandlerFunc
		class  error
		asked  int64
	}{
		{0, says(404, ""), tinycloud.ErrForbidden, 1},
		{9 * time.Second, says(200, spaceText), tinycloud.ErrForbidden, 1},
		{2 * time.Second, says(200, spaceText), nil, 2},
		{59 * time.Second, says(404, ""), nil, 2},
		{2 * time.Second, says(503, ""), tinycloud.ErrUnavailable, 3},
		{500 * time.Millisecond, says(200, spaceText), tinycloud.ErrUnavailable, 3},
		{time.Second, says(200, spaceText), nil, 4},
	} {
		s.answers(step.answer)
		c.advance(step.after)
		if err := l.Allow(t.Context(), space); !errors.Is(err, step.class) || s.asked.Load() != step.asked {
			t.Errorf("step %d: %v, asked %d times, want %v and %d", i, err, s.asked.Load(), step.class, step.asked)
		}
	}
}

// TestOneQuestionAtATime has many callers share one question, also when the first of them goes away.
func TestOneQuestionAtATime(t *testing.T) {
	space, c := parse(t, spaceText), &clock{}
	arrived, proceed := make(chan struct{}, 8), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-proceed
		says(200, spaceText)(w, r)
	})
	l := policy.NewAllowlist(options(t, s.URL, c))
	defer l.Close()
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { errs <- l.Allow(t.Context(), space) }()
	}
	<-arrived
	close(proceed)
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if s.asked.Load() != 1 {
		t.Errorf("asked %d times", s.asked.Load())
	}
}

func TestCloseEndsQuestions(t *testing.T) {
	space, c := parse(t, spaceText), &clock{}
	arrived := make(chan struct{}, 1)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		silent(w, r)
	})
	l := policy.NewAllowlist(options(t, s.URL, c))
	failed := make(chan error, 1)
	go func() { failed <- l.Allow(t.Context(), space) }()
	<-arrived
	l.Close()
	if err := <-failed; !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Error(err)
	}
	if err := l.Allow(t.Context(), parse(t, spaceText+"2")); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Error("after Close:", err)
	}
}

func limitBody(n int64) string { return fmt.Sprintf(`{"storage_limit_bytes":%d,"plan":"free"}`, n) }

func wantLimit(t *testing.T, q *policy.Quota, want int64) {
	t.Helper()
	got, ok := q.Limit(parse(t, spaceText))
	if !ok {
		got = -1
	}
	if got != want {
		t.Errorf("limit %d, want %d", got, want)
	}
}

func TestQuotaAnswers(t *testing.T) {
	space := parse(t, spaceText)
	elsewhere := serve(t, says(200, limitBody(7)))
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   int64 // -1: none
	}{
		"a limit":     {says(200, limitBody(1234)), 1234},
		"zero":        {says(200, limitBody(0)), 0},
		"negative":    {says(200, limitBody(-1)), -1},
		"null":        {says(200, `{"storage_limit_bytes":null}`), -1},
		"a text":      {says(200, `{"storage_limit_bytes":"12"}`), -1},
		"a fraction":  {says(200, `{"storage_limit_bytes":1.5}`), -1},
		"beyond":      {says(200, `{"storage_limit_bytes":9223372036854775808}`), -1},
		"another":     {says(200, `{"limit":12}`), -1},
		"two":         {says(200, limitBody(1)+limitBody(2)), -1},
		"no JSON":     {says(200, "12"), -1},
		"a huge body": {huge, -1},
		"cut off":     {cut, -1},
		"not found":   {says(404, limitBody(7)), -1},
		"broken":      {says(500, limitBody(7)), -1},
		"a redirect":  {redirects(elsewhere.URL), -1},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tt.answer)
			q := policy.NewQuota(options(t, s.URL+"/", &clock{}))
			defer q.Close()
			wantLimit(t, q, -1)
			q.Warm(t.Context(), space)
			wantLimit(t, q, tt.want)
			if _, ok := s.paths.Load("GET /api/quota/" + url.QueryEscape(spaceText)); !ok || s.asked.Load() != 1 {
				t.Errorf("asked %d times", s.asked.Load())
			}
		})
	}
	if elsewhere.asked.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// TestQuotaOutage follows a limit through an outage of the service and its recovery.
func TestQuotaOutage(t *testing.T) {
	space, c := parse(t, spaceText), &clock{}
	s := serve(t, says(500, ""))
	q := policy.NewQuota(options(t, s.URL, c))
	defer q.Close()
	warm := func(after time.Duration, answer http.HandlerFunc, asked, want int64) {
		t.Helper()
		s.answers(answer)
		c.advance(after)
		q.Warm(t.Context(), space)
		if got := s.asked.Load(); got != asked {
			t.Errorf("asked %d times, want %d", got, asked)
		}
		wantLimit(t, q, want)
	}
	warm(0, says(500, ""), 1, -1)
	warm(29*time.Second, says(200, limitBody(5)), 1, -1) // left alone
	warm(2*time.Second, says(200, limitBody(5)), 2, 5)
	warm(59*time.Second, says(200, limitBody(6)), 2, 5)
	// No longer fresh: the old limit holds while the new one is on its way.
	arrived, proceed := make(chan struct{}, 1), make(chan struct{})
	s.answers(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-proceed
		says(200, limitBody(6))(w, r)
	})
	c.advance(2 * time.Second)
	for range 3 {
		q.Warm(t.Context(), space)
		wantLimit(t, q, 5)
	}
	<-arrived
	close(proceed)
	settle(t, q, 6)
	if got := s.asked.Load(); got != 3 {
		t.Errorf("asked %d times, want 3", got)
	}
	// It fails: what it said holds on, and it is left alone for a while.
	s.answers(says(502, ""))
	c.advance(61 * time.Second)
	q.Warm(t.Context(), space)
	q.Settle()
	wantLimit(t, q, 6)
	warm(29*time.Second, says(200, limitBody(9)), 4, 6)
	c.advance(2 * time.Second)
	q.Warm(t.Context(), space)
	settle(t, q, 9)
}

func settle(t *testing.T, q *policy.Quota, want int64) {
	t.Helper()
	q.Settle()
	wantLimit(t, q, want)
}

func TestSilentQuotaService(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for seconds")
	}
	space, c := parse(t, spaceText), &clock{}
	s := serve(t, silent)
	q := policy.NewQuota(options(t, s.URL, c))
	defer q.Close()
	began := time.Now()
	q.Warm(t.Context(), space)
	if took := time.Since(began); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("waited %s for a silent service", took)
	}
	began = time.Now()
	q.Warm(t.Context(), space)
	if took := time.Since(began); took > 2*time.Second { // which the first call waited at least
		t.Errorf("waited %s for a service that failed just now", took)
	}
}

func FuzzNames(f *testing.F) {
	f.Add([]byte(spaceText))
	f.Add([]byte(`"` + spaceText + `"`))
	f.Add([]byte(`"\u0074inycloud:key:x:y"`))
	space := parse(f, spaceText)
	f.Fuzz(func(t *testing.T, body []byte) {
		if policy.Names(body, space) && !strings.Contains(strings.ToLower(string(body)), "default") && !strings.Contains(string(body), `\u`) {
			t.Errorf("%q names the space", body)
		}
	})
}

func FuzzQuota(f *testing.F) {
	f.Add([]byte(limitBody(12)))
	f.Add([]byte(`{"storage_limit_bytes":-0}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if n, err := policy.ParseQuota(body); n < 0 || err != nil && n != 0 {
			t.Errorf("%q: %d, %v", body, n, err)
		}
	})
}
