package tinycloud

import (
	"errors"
	"net/http"
)

// statuses are those by which the HTTP API answers with classes of errors. An error of several is of the first. A status of several
// classes stands for the first of them.
var statuses = []struct {
	class  error
	status int
}{
	{ErrUnauthorized, http.StatusUnauthorized},
	{ErrUndecodable, http.StatusUnauthorized},
	{ErrForged, http.StatusUnauthorized},
	{ErrInvalid, http.StatusBadRequest},
	{ErrQuota, http.StatusPaymentRequired},
	{ErrFull, http.StatusInsufficientStorage},
	{ErrForbidden, http.StatusForbidden},
	{ErrNotFound, http.StatusNotFound},
	{ErrConflict, http.StatusConflict},
	{ErrPrecondition, http.StatusPreconditionFailed},
	{ErrTooLarge, http.StatusRequestEntityTooLarge},
	{ErrRange, http.StatusRequestedRangeNotSatisfiable},
	{ErrBusy, http.StatusTooManyRequests},
	{ErrUnsupported, http.StatusNotImplemented},
	{ErrUnavailable, http.StatusServiceUnavailable},
}

// StatusOf is the HTTP status of an error, 500 for one of no class.
func StatusOf(err error) int {
	for _, s := range statuses {
		if errors.Is(err, s.class) {
			return s.status
		}
	}
	return http.StatusInternalServerError
}

// ClassOf is the class of errors that an HTTP status stands for, nil for none.
func ClassOf(status int) error {
	for _, s := range statuses {
		if s.status == status {
			return s.class
		}
	}
	return nil
}
