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

// statusTexts are for clients that get no [tinycloud.Refusal].
var statusTexts = map[int]string{
	http.StatusUnauthorized:          "The request requires user authentication.",
	http.StatusBadRequest:            "The request could not be understood by the server due to malformed syntax.",
	http.StatusPaymentRequired:       "Storage quota exceeded.",
	http.StatusInsufficientStorage:   "This node has no room left",
	http.StatusForbidden:             "The signer may not do this.",
	http.StatusNotFound:              "The requested resource could not be found.",
	http.StatusConflict:              "duplicate invocation",
	http.StatusPreconditionFailed:    "KV precondition failed",
	http.StatusRequestEntityTooLarge: "The request is too large.",
	http.StatusTooManyRequests:       "Rate limit exceeded",
	http.StatusNotImplemented:        "Not supported by this node.",
	http.StatusServiceUnavailable:    "Temporarily unavailable; retry the request",
	http.StatusInternalServerError:   internalText,
}

// verdict is the status and the text of an error. Who doesn't wait for an answer is told to retry.
func verdict(err error) (status int, text string) {
	status = tinycloud.StatusOf(err)
	if status == http.StatusInternalServerError && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		status = http.StatusServiceUnavailable
	}
	return status, statusTexts[status]
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
