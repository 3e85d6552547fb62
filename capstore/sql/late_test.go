package sql

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// stuck is a history that has a write of a database, and never comes to tell which.
type stuck struct{ service.Store }

func (stuck) ServiceState(context.Context, tinycloud.SpaceID, string, string) ([]byte, error) {
	return state{n: 1}.encode(), nil
}

func (stuck) Log(ctx context.Context, _ tinycloud.SpaceID, _, _ string, _ func(service.Log) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func (stuck) Shared() bool { return false }

// A query whose time ends while the files are brought to the history, and one that waits for them behind it, did nothing wrong:
// this host can't answer now.
func TestQueryBeforeTheFilesAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Dir: t.TempDir()})
		begin := time.Now()
		failed := make(chan error)
		for range 2 {
			go func() {
				_, err := s.Look(t.Context(), stuck{}, tinycloud.SpaceID{}, "db", []byte(`{"action":"query","sql":"SELECT 1"}`))
				failed <- err
			}()
		}
		for range 2 {
			if err := <-failed; !errors.Is(err, tinycloud.ErrUnavailable) || errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("answered %v", err)
			}
		}
		if took := time.Since(begin); took != maxQuery {
			t.Errorf("after %v", took)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Whose fault it is that a time ended.
func TestLate(t *testing.T) {
	ran := tinycloud.Refuse(tinycloud.ErrInvalid, "SQLite error: as it stops")
	for _, tt := range []struct {
		err, want error
		text      string
	}{
		{fmt.Errorf("%w: %w", context.DeadlineExceeded, ran), tinycloud.ErrInvalid, "SQLite error: interrupted"},
		{context.DeadlineExceeded, tinycloud.ErrUnavailable, "database not ready in time: temporarily unavailable: context deadline exceeded"},
		{ran, tinycloud.ErrInvalid, "SQLite error: as it stops"},
	} {
		if err := late(tt.err); !errors.Is(err, tt.want) || err.Error() != tt.text {
			t.Errorf("%v: %v", tt.err, err)
		}
	}
	if err := late(nil); err != nil {
		t.Error(err)
	}
}
