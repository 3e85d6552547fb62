package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/TinyCloudLabs/tinycloud-peer/client"
)

// webExample serves the example with the libraries that scripts/install got, in place of those of the web.
func webExample(t *testing.T) string {
	t.Helper()
	modules := filepath.Join(shipRoot, "bin/node/node_modules/@noble/hashes/esm")
	if _, err := os.Stat(modules); err != nil {
		t.Skip("scripts/install did not get its packages")
	}
	page := shipped(t, "examples/web/index.html")
	const web = "https://esm.sh/@noble/hashes@1.8.0/"
	page = strings.ReplaceAll(page, web+"blake3", "/lib/blake3.js")
	page = strings.ReplaceAll(page, web+`sha3"`, `/lib/sha3.js", "@noble/hashes/crypto": "/lib/crypto.js"`)
	mux := http.NewServeMux()
	mux.Handle("/lib/", http.StripPrefix("/lib/", http.FileServer(http.Dir(modules))))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// TestWebExample signs in to a node with a browser's wallet, and writes, reads and deletes a note.
func TestWebExample(t *testing.T) {
	t.Parallel()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("no Chromium: scripts/install installs it where apt-get has it")
	}
	site := webExample(t)
	g := startGroup(t, 0)
	p := g.add()
	w := client.RandomWallet()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	defer cancel()
	sign := func(_ context.Context, data string) (string, error) {
		text, err := hex.DecodeString(strings.TrimPrefix(data, "0x"))
		return fmt.Sprintf("0x%x", w.PersonalSign(string(text))), err
	}
	wallet := fmt.Sprintf(`window.ethereum = { request: async ({ method, params }) => method === "eth_requestAccounts" ? [%q] : askWallet(params[0]) }`, strings.ToLower(w.Address()))
	sees := func(text string) chromedp.Action[chromedp.Void] {
		return chromedp.Poll[chromedp.Void](fmt.Sprintf("document.body.innerText.includes(%q)", text), chromedp.WithPollingInterval(30*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second))
	}
	err := chromedp.Do(ctx, chromedp.ExposeFunc("askWallet", sign), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: wallet})
		return err
	}),
		chromedp.Navigate(site+"/?host="+url.QueryEscape(p.URL)),
		chromedp.Click(chromedp.CSS("#begin"), chromedp.NodeEnabled), sees(" at "+p.URL),
		chromedp.SendKeys(chromedp.CSS("#text"), "written in a browser"), chromedp.Click(chromedp.CSS("#write button"), chromedp.NodeEnabled), sees("written in a browser"),
	)
	if err != nil {
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
		t.Fatalf("%v\n%s", err, text)
	}
	space, err := w.Space("notes")
	g.must(err)
	if v, err := p.Admin.Space(g.ctx, space); err != nil || v.Keys != 1 {
		t.Errorf("%d keys, %v", v.Keys, err)
	}
	gone := chromedp.Poll[chromedp.Void](`!document.querySelector("#notes li")`, chromedp.WithPollingInterval(30*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second))
	g.must(chromedp.Do(ctx, chromedp.Click(chromedp.CSS("#notes button"), chromedp.NodeEnabled), gone))
}
