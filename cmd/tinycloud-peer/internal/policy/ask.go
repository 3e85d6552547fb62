package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Bounds of a question.
const (
	askTimeout     = 3 * time.Second
	connectTimeout = 2 * time.Second
	maxAnswer      = 4 << 10 // bytes of a body
	maxAnswerHead  = 16 << 10
	maxQuestions   = 32 // at once
	maxRemembered  = 1 << 14
)

// Options of an [Allowlist] or a [Quota].
type Options struct {
	URL string           // of the service, http or https
	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // nil: nothing is logged
}

// response is what a service said.
type response struct {
	status int
	body   []byte // nil when it is longer than maxAnswer
}

// asker puts questions to one service and remembers what it made of the answers.
type asker[A any] struct {
	o    Options
	http *http.Client
	find func(context.Context, tinycloud.SpaceID) A // the answer, whatever happens

	slots chan struct{}
	known *lru.Cache[tinycloud.SpaceID, A]

	mu      sync.Mutex
	running map[tinycloud.SpaceID]question
	ended   bool
	wg      sync.WaitGroup
}

// question is one under way. It outlives whoever asked first.
type question struct {
	done   chan struct{} // closed when the answer is known
	cancel context.CancelFunc
}

func newAsker[A any](o Options) *asker[A] {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &asker[A]{o: o, slots: make(chan struct{}, maxQuestions), running: map[tinycloud.SpaceID]question{}}
	a.known, _ = lru.New[tinycloud.SpaceID, A](maxRemembered) // the size is positive
	a.http = &http.Client{
		Transport: &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: connectTimeout}).DialContext, TLSHandshakeTimeout: connectTimeout,
			MaxResponseHeaderBytes: maxAnswerHead, DisableCompression: true,
			MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return a
}

// begin puts a question unless it is under way; the question outlives who asks first. The result is closed when the answer is known.
func (a *asker[A]) begin(ctx context.Context, space tinycloud.SpaceID) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q, ok := a.running[space]; ok {
		return q.done
	}
	done := make(chan struct{})
	if a.ended {
		close(done)
		return done
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	a.running[space] = question{done, cancel}
	a.wg.Go(func() {
		defer cancel()
		answer := a.find(ctx, space)
		a.known.Add(space, answer)
		a.mu.Lock()
		delete(a.running, space)
		a.mu.Unlock()
		close(done)
	})
	return done
}

// get sends a request. An answer that doesn't come whole is an error; one that is too long is none.
func (a *asker[A]) get(ctx context.Context, url string) (response, error) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return response{}, fmt.Errorf("too many questions at once: %w", ctx.Err())
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return response{}, err
	}
	resp, err := a.http.Do(r)
	if err != nil {
		return response{}, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return response{}, err
	}
	if len(body) > maxAnswer {
		body = nil
	}
	return response{resp.StatusCode, body}, nil
}

// Close ends what is under way and waits for it.
func (a *asker[A]) Close() {
	a.mu.Lock()
	a.ended = true
	for _, q := range a.running {
		q.cancel()
	}
	a.mu.Unlock()
	a.wg.Wait()
	a.http.CloseIdleConnections()
}
