package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const internalText = "internal error"

// reasonHeader says what is wrong with a token or a request whose answer has a text that the contract gives.
const reasonHeader = "TinyCloud-Error"

// maxReason bounds what of a token is told back, in bytes.
const maxReason = 300

// reason is a sentence that may stand in a header: printable ASCII.
func reason(err error) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, tinycloud.Plain(err))
	return text[:min(len(text), maxReason)]
}

// verdict is the one place where classes of errors become statuses. The text is for clients that get no
// [tinycloud.Refusal].
func verdict(err error) (status int, text string) {
	switch {
	case errors.Is(err, tinycloud.ErrUndecodable), errors.Is(err, tinycloud.ErrForged), errors.Is(err, tinycloud.ErrUnauthorized):
		return http.StatusUnauthorized, "The request requires user authentication."
	case errors.Is(err, tinycloud.ErrInvalid):
		return http.StatusBadRequest, "The request could not be understood by the server due to malformed syntax."
	case errors.Is(err, tinycloud.ErrQuota):
		return http.StatusPaymentRequired, "Storage quota exceeded."
	case errors.Is(err, tinycloud.ErrFull):
		return http.StatusInsufficientStorage, "This node has no room left"
	case errors.Is(err, tinycloud.ErrForbidden):
		return http.StatusForbidden, "The signer may not do this."
	case errors.Is(err, tinycloud.ErrNotFound):
		return http.StatusNotFound, "The requested resource could not be found."
	case errors.Is(err, tinycloud.ErrConflict):
		return http.StatusConflict, "duplicate invocation"
	case errors.Is(err, tinycloud.ErrPrecondition):
		return http.StatusPreconditionFailed, "KV precondition failed"
	case errors.Is(err, tinycloud.ErrTooLarge):
		return http.StatusRequestEntityTooLarge, "The request is too large."
	case errors.Is(err, tinycloud.ErrRange):
		return http.StatusRequestedRangeNotSatisfiable, ""
	case errors.Is(err, tinycloud.ErrBusy):
		return http.StatusTooManyRequests, "Rate limit exceeded"
	case errors.Is(err, tinycloud.ErrUnsupported):
		return http.StatusNotImplemented, "Not supported by this node."
	case errors.Is(err, tinycloud.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, "Temporarily unavailable; retry the request"
	}
	return http.StatusInternalServerError, internalText
}

// refuse answers with an error, or cuts the connection if an answer has begun.
func (a *API) refuse(w *response, r *http.Request, err error) {
	status, text := verdict(err)
	var refusal *tinycloud.Refusal
	if errors.As(err, &refusal) && status != http.StatusInternalServerError {
		text = refusal.Text
	}
	switch {
	case w.status != 0:
		w.cut = true
		a.log.WarnContext(r.Context(), "answer broke off", "error", err)
		return
	case status == http.StatusInternalServerError:
		a.log.ErrorContext(r.Context(), "request failed", "error", err)
	case status == http.StatusServiceUnavailable && refusal == nil && r.Context().Err() == nil:
		a.log.WarnContext(r.Context(), "request could not be served", "error", err)
	default:
		a.log.DebugContext(r.Context(), "request refused", "status", status, "error", err)
	}
	if refusal == nil && (status == http.StatusUnauthorized || status == http.StatusBadRequest) {
		w.Header().Set(reasonHeader, reason(err))
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	sendText(w, status, text)
}
