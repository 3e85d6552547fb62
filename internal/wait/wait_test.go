package wait_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

func TestSignalsAreOne(t *testing.T) {
	s := wait.NewSignal()
	select {
	case <-s:
		t.Fatal("given by nobody")
	default:
	}
	s.Give()
	s.Give()
	<-s
	select {
	case <-s:
		t.Error("two signals are two")
	default:
	}
	s.Give()
	<-s
}

func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, s := time.Now(), wait.NewSignal()
		if !s.Within(t.Context(), time.Minute) || time.Since(began) != time.Minute {
			t.Errorf("without a signal: %s", time.Since(began))
		}
		began = time.Now()
		time.AfterFunc(time.Second, s.Give)
		if !s.Within(t.Context(), time.Minute) || time.Since(began) != time.Second {
			t.Errorf("with one: %s", time.Since(began))
		}
		if !s.Within(t.Context(), time.Minute) || time.Since(began) != time.Minute+time.Second {
			t.Errorf("one signal is heard twice: %s", time.Since(began))
		}
		began = time.Now()
		ctx, end := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, end)
		if s.Within(ctx, time.Minute) || time.Since(began) != time.Second {
			t.Errorf("outlives its context: %s", time.Since(began))
		}
		s.Give()
		if s.Within(ctx, 0) {
			t.Error("goes on though the context has ended")
		}
	})
}

func TestFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !wait.For(t.Context(), time.Minute) || time.Since(began) != time.Minute {
			t.Errorf("after %s", time.Since(began))
		}
		if !wait.For(t.Context(), 0) || !wait.For(t.Context(), -time.Second) || time.Since(began) != time.Minute {
			t.Error("no time is not over at once")
		}
		ctx, end := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, end)
		if wait.For(ctx, time.Hour) || time.Since(began) != time.Minute+time.Second {
			t.Errorf("outlives its context: %s", time.Since(began))
		}
		for _, d := range []time.Duration{-1, 0, time.Hour} {
			if wait.For(ctx, d) {
				t.Errorf("%s passes though the context has ended", d)
			}
		}
		if time.Since(began) != time.Minute+time.Second {
			t.Error("waits though the context has ended")
		}
	})
}
