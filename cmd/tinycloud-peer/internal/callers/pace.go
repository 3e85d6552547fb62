package callers

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// Pace is how fast clients have to be.
type Pace struct {
	Idle  time.Duration // without a byte of a body or an answer
	Grace time.Duration // of waiting for a body's bytes before the rate counts
	Rate  int64         // bytes of a body per second waited for
	Drain time.Duration // for what a handler left of a body

	Metrics *Metrics // counts bodies cut off; nil: nothing does
}

// DefaultPace is slow enough for any network that people use.
func DefaultPace() Pace {
	return Pace{Idle: time.Minute, Grace: 30 * time.Second, Rate: 1 << 10, Drain: 10 * time.Second}
}

// Handler has every request of h end: its body comes at the pace, or reading it fails with
// [os.ErrDeadlineExceeded]; its answer is taken; what is left of the body is not waited for. Time counts only while
// the client is waited for, so a busy node cuts nobody off. Once the whole body is here h may take as long as it likes.
func (p Pace) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{ResponseWriter: w, control: http.NewResponseController(w), idle: 2 * p.Idle}
		a.extend()
		if r.Body == nil || r.Body == http.NoBody {
			_ = a.control.SetReadDeadline(time.Time{})
		} else {
			_ = a.control.SetReadDeadline(time.Now().Add(p.Grace))
			r.Body = &body{ReadCloser: r.Body, control: a.control, pace: p}
		}
		defer func() { // the server sends what is buffered, and reads on
			a.extend()
			_ = a.control.SetReadDeadline(time.Now().Add(p.Drain))
		}()
		h.ServeHTTP(a, r)
	})
}

// body has a deadline for each read.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	pace    Pace
	waited  time.Duration // for bytes
	came    int64         // bytes
	cut     bool
}

// Read waits no longer than the pace allows. A time limit that is over leaves an instant for what is here already.
func (b *body) Read(p []byte) (int, error) {
	left := b.pace.Grace - b.waited + time.Duration(b.came/b.pace.Rate)*time.Second
	began := time.Now()
	_ = b.control.SetReadDeadline(began.Add(min(b.pace.Idle, max(left, time.Millisecond))))
	n, err := b.ReadCloser.Read(p)
	b.waited += time.Since(began)
	b.came += int64(n)
	if errors.Is(err, os.ErrDeadlineExceeded) && !b.cut {
		b.cut = true
		b.pace.Metrics.limited(byPace)
	}
	if err == io.EOF {
		_ = b.control.SetReadDeadline(time.Time{}) // a client that waits for its answer says nothing
	}
	return n, err
}

// answer has a deadline for each write.
type answer struct {
	http.ResponseWriter
	control *http.ResponseController
	idle    time.Duration
}

// Unwrap is for [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader gives the client time for what follows.
func (a *answer) WriteHeader(status int) {
	a.extend()
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.extend()
	return a.ResponseWriter.Write(p)
}

func (a *answer) extend() { _ = a.control.SetWriteDeadline(time.Now().Add(a.idle)) }
