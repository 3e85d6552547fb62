package page_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/page"
)

// origin is where the pages of these tests are.
const origin = "http://127.0.0.1:8002"

// newPage returns a page whose admin API says who came there.
func newPage(now func() time.Time) *page.Page {
	admin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+r.Header.Get("Cookie")+r.Header.Get("Authorization"))
	})
	return page.New(page.Options{Admin: admin, Address: netip.MustParseAddr("127.0.0.1"), Port: "8002", Now: now})
}

// browser keeps what a log-in brings.
type browser struct {
	p      *page.Page
	cookie *http.Cookie
	token  string
}

// ask sends a request as the page's own scripts do; change is called before it goes.
func (b *browser) ask(t *testing.T, method, path, body string, change func(*http.Request)) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, origin+path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:40000"
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if b.cookie != nil {
		r.AddCookie(b.cookie)
	}
	if b.token != "" {
		r.Header.Set(page.Header, b.token)
	}
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	b.p.Handler().ServeHTTP(w, r)
	return w.Result()
}

func (b *browser) login(t *testing.T, code string) int {
	t.Helper()
	resp := b.ask(t, http.MethodPost, "/login", `{"code":"`+code+`"}`, nil)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode
	}
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if len(resp.Cookies()) != 1 {
		t.Fatalf("cookies: %v", resp.Cookies())
	}
	b.cookie, b.token = resp.Cookies()[0], answer.Token
	return resp.StatusCode
}

// in is a browser that is logged in.
func in(t *testing.T, p *page.Page) *browser {
	t.Helper()
	b := &browser{p: p}
	code, _ := p.Code()
	if status := b.login(t, code); status != http.StatusOK {
		t.Fatal("log-in:", status)
	}
	return b
}

func statusOf(t *testing.T, resp *http.Response) int {
	t.Helper()
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

func TestLogin(t *testing.T) {
	p := newPage(nil)
	code, expires := p.Code()
	if left := time.Until(expires); left <= 0 || left > 15*time.Minute {
		t.Errorf("a code is good for %s", left)
	}
	b := &browser{p: p}
	if status := statusOf(t, b.ask(t, http.MethodGet, "/admin/node", "", nil)); status != http.StatusUnauthorized {
		t.Error("before the log-in:", status)
	}
	if status := b.login(t, "wrong"); status != http.StatusForbidden {
		t.Error("wrong code:", status)
	}
	if status := b.login(t, code); status != http.StatusOK {
		t.Fatal("right code:", status)
	}
	if c := b.cookie; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.MaxAge <= 0 || len(c.Value) != 43 || !strings.HasSuffix(c.Name, "8002") || c.Domain != "" {
		t.Errorf("cookie %+v", c)
	}
	if other := (&browser{p: p}); other.login(t, code) != http.StatusForbidden {
		t.Error("a code was used twice")
	}
	resp := b.ask(t, http.MethodPut, "/admin/x", "{}", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") })
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	// Cookie and bearer end here.
	if status := statusOf(t, resp); status != http.StatusOK || string(got) != "PUT /admin/x " {
		t.Errorf("logged in: %d %s", status, got)
	}
	if status := statusOf(t, b.ask(t, http.MethodPost, "/logout", "{}", nil)); status != http.StatusOK {
		t.Error("log-out:", status)
	}
	if status := statusOf(t, b.ask(t, http.MethodGet, "/admin/node", "", nil)); status != http.StatusUnauthorized {
		t.Error("after the log-out:", status)
	}
}

// What a request lacks that is not from the page's own scripts.
func TestWhoIsRefused(t *testing.T) {
	p := newPage(nil)
	b := in(t, p)
	other := in(t, p)
	for name, c := range map[string]struct {
		method string
		change func(*http.Request)
		want   int
	}{
		"as it should be":        {http.MethodPost, nil, http.StatusOK},
		"no cookie":              {http.MethodGet, func(r *http.Request) { r.Header.Del("Cookie") }, http.StatusUnauthorized},
		"no token":               {http.MethodGet, func(r *http.Request) { r.Header.Del(page.Header) }, http.StatusUnauthorized},
		"token of another":       {http.MethodGet, func(r *http.Request) { r.Header.Set(page.Header, other.token) }, http.StatusUnauthorized},
		"another site changes":   {http.MethodPost, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		"another port changes":   {http.MethodPut, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, http.StatusForbidden},
		"another origin deletes": {http.MethodDelete, func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "http://127.0.0.1:3000") }, http.StatusForbidden},
		"an old browser":         {http.MethodPost, func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", origin) }, http.StatusOK},
		"bearer alone": {http.MethodGet, func(r *http.Request) {
			r.Header.Del("Cookie")
			r.Header.Set("Authorization", "Bearer "+b.token)
		}, http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			if got := statusOf(t, b.ask(t, c.method, "/admin/spaces", "", c.change)); got != c.want {
				t.Errorf("status %d, want %d", got, c.want)
			}
		})
	}
}

// A name that an attacker's DNS leads here is no name of this machine.
func TestHost(t *testing.T) {
	p := newPage(nil)
	for host, want := range map[string]int{
		"127.0.0.1:8002": http.StatusOK, "localhost:9000": http.StatusOK, "LOCALHOST": http.StatusOK, "[::1]:8002": http.StatusOK, "127.9.9.9": http.StatusOK,
		"evil.example:8002": http.StatusMisdirectedRequest, "localhost.evil.example": http.StatusMisdirectedRequest, "127.0.0.1.nip.io:8002": http.StatusMisdirectedRequest,
		"192.0.2.1:8002": http.StatusMisdirectedRequest, "": http.StatusMisdirectedRequest, "0.0.0.0:8002": http.StatusMisdirectedRequest, "[::]": http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"/", "/static/app.js"} {
			got := statusOf(t, (&browser{p: p}).ask(t, http.MethodGet, path, "", func(r *http.Request) { r.Host = host }))
			if got != want {
				t.Errorf("%s of %q: status %d, want %d", path, host, got, want)
			}
		}
	}
}

func TestHeaders(t *testing.T) {
	p := newPage(nil)
	for path, want := range map[string]string{"/": "text/html", "/static/app.js": "text/javascript", "/static/style.css": "text/css", "/admin/node": "application/json", "/none": "text/plain"} {
		resp := (&browser{p: p}).ask(t, http.MethodGet, path, "", nil)
		body, err := io.ReadAll(resp.Body)
		statusOf(t, resp)
		if err != nil || !strings.HasPrefix(resp.Header.Get("Content-Type"), want) {
			t.Errorf("%s: %s %v", path, resp.Header.Get("Content-Type"), err)
		}
		csp := resp.Header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: policy %q without %s", path, csp, part)
			}
		}
		if strings.Contains(csp, "unsafe") || resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Referrer-Policy") != "no-referrer" || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %v", path, resp.Header)
		}
		// Without a build step there is nothing to keep scripts and styles in files but this.
		if path == "/" && (strings.Contains(string(body), "style=") || strings.Contains(string(body), "onclick") || strings.Contains(string(body), "//")) {
			t.Error("index.html has something inline, or of elsewhere")
		}
	}
}

// Codes and sessions end, and are bounded.
func TestBounds(t *testing.T) {
	now := time.Now()
	p := newPage(func() time.Time { return now })
	old, _ := p.Code()
	for range 8 {
		now = now.Add(time.Millisecond)
		p.Code()
	}
	if (&browser{p: p}).login(t, old) != http.StatusForbidden {
		t.Error("nine codes are open")
	}
	code, expires := p.Code()
	now = expires
	if (&browser{p: p}).login(t, code) != http.StatusForbidden {
		t.Error("a code was used after its end")
	}
	first := in(t, p)
	var last *browser
	for range 16 {
		now = now.Add(time.Millisecond)
		last = in(t, p)
	}
	if status := statusOf(t, first.ask(t, http.MethodGet, "/admin/node", "", nil)); status != http.StatusUnauthorized {
		t.Error("the first of 17 sessions:", status)
	}
	if status := statusOf(t, last.ask(t, http.MethodGet, "/admin/node", "", nil)); status != http.StatusOK {
		t.Error("the last of 17 sessions:", status)
	}
	now = now.Add(12 * time.Hour)
	if status := statusOf(t, last.ask(t, http.MethodGet, "/admin/node", "", nil)); status != http.StatusUnauthorized {
		t.Error("a session after its end:", status)
	}
}

// Who guesses is slowed down, and what is wrong is too large a body.
func TestGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPage(nil)
		b := &browser{p: p}
		began := time.Now()
		for range 10 {
			b.login(t, "guess")
		}
		if spent := time.Since(began); spent != 0 {
			t.Errorf("ten guesses took %s", spent)
		}
		b.login(t, "guess")
		if spent := time.Since(began); spent < 500*time.Millisecond {
			t.Errorf("the eleventh took %s", spent)
		}
		code, _ := p.Code()
		if status := b.login(t, code); status != http.StatusOK {
			t.Error("the operator was kept out:", status)
		}
		if status := (&browser{p: p}).login(t, strings.Repeat("x", 2048)); status != http.StatusBadRequest {
			t.Error("a large code:", status)
		}
	})
}

// Texts of strangers are shown. Nothing that makes markup or code of a text is in the scripts.
func TestNoMarkup(t *testing.T) {
	files, err := os.ReadDir("static")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join("static", file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "setHTML", "createContextualFragment", "eval(", "new Function", "javascript:", "srcdoc", "http://", "https://"} {
			if strings.Contains(strings.ReplaceAll(string(b), "http://www.w3.org/2000/svg", ""), word) {
				t.Errorf("%s has %s", file.Name(), word)
			}
		}
	}
}
