package tinycloud_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

func TestStatuses(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		class  error // that the status stands for
	}{
		{tinycloud.Refuse(tinycloud.ErrQuota, "full"), http.StatusPaymentRequired, tinycloud.ErrQuota},
		{fmt.Errorf("a: %w", tinycloud.ErrForged), http.StatusUnauthorized, tinycloud.ErrUnauthorized},
		{fmt.Errorf("%w: %w", tinycloud.ErrUnavailable, tinycloud.ErrInvalid), http.StatusBadRequest, tinycloud.ErrInvalid},
		{tinycloud.ErrFull, http.StatusInsufficientStorage, tinycloud.ErrFull},
		{context.Canceled, http.StatusInternalServerError, nil},
		{errors.New("ours"), http.StatusInternalServerError, nil},
	} {
		if got := tinycloud.StatusOf(c.err); got != c.status {
			t.Errorf("%v: %d, not %d", c.err, got, c.status)
		}
		if got := tinycloud.ClassOf(c.status); got != c.class {
			t.Errorf("%d: %v, not %v", c.status, got, c.class)
		}
	}
}
