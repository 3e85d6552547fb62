package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// send answers with a whole body. Write errors are the client's going away.
func send(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if len(body) > 0 {
		_, _ = w.Write(body)
	}
}

func sendText(w http.ResponseWriter, status int, text string) {
	contentType := "text/plain; charset=utf-8"
	if text == "" {
		contentType = ""
	}
	send(w, status, contentType, []byte(text))
}

func sendJSON(w http.ResponseWriter, v any) error {
	b, err := encodeJSON(v)
	if err != nil {
		return err
	}
	send(w, http.StatusOK, "application/json", b)
	return nil
}

// encodeJSON writes text as it is, without Go's escapes for HTML.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
