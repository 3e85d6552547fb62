package page_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
	"github.com/TinyCloudLabs/tinycloud-peer/client"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

const adminSecret = "let me in, please"

// host is a node of a test.
type host struct {
	*node.Node
	admin *admin.Client
}

// runHost runs a node until the test ends.
func runHost(t *testing.T) host {
	t.Helper()
	cfg, _, err := config.Load(config.LoadOptions{Dir: t.TempDir(), Environ: []string{
		"TINYCLOUD_PORT=0", "TINYCLOUD_PROMETHEUS_PORT=0", "TINYCLOUD_ADMIN_PORT=0", "TINYCLOUD_P2P_NAT=false",
		"TINYCLOUD_P2P_LISTEN=/ip4/127.0.0.1/tcp/0", "TINYCLOUD_STORAGE_DATADIR=" + filepath.Join(t.TempDir(), "data"), "TINYCLOUD_ADMIN_SECRET=" + adminSecret,
	}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.New(t.Context(), cfg, node.Options{Version: "1.2.3", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Services: []service.HTTP{sql.New(sql.Options{})}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	h := host{n, admin.Remote(n.URL(), adminSecret)}
	t.Cleanup(func() {
		h.admin.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error("run:", err)
		}
	})
	return h
}

// chromium is a browser of the system's package manager.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("no Chromium: scripts/install installs it where apt-get has it")
	return ""
}

// tab is a browser that shows a node's page, with a wallet.
type tab struct {
	t      *testing.T
	ctx    context.Context
	origin string
	wallet *client.Wallet

	mu     sync.Mutex
	signed []string // texts that the wallet was asked for; guarded by mu
	faults []string // what the browser complained of, or went elsewhere for; guarded by mu
}

// walletScript is what a wallet's extension gives a page. It gives the account in lower case, as most do.
const walletScript = `window.ethereum = { request: async ({ method, params }) => {
  if (method === 'eth_requestAccounts') return [%q]
  if (method === 'personal_sign') return await window.askWallet({ data: params[0], account: params[1] })
  throw new Error('no such method')
} }`

// asked is what a wallet is asked to sign.
type asked struct {
	Data    string `json:"data"` // hex
	Account string `json:"account"`
}

func openTab(t *testing.T, h host, wallet *client.Wallet) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1200, 900))
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx, origin: strings.TrimSuffix(h.PageURL(), "/"), wallet: wallet}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.ExposeFunc("askWallet", b.sign), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{
			Source: fmt.Sprintf(walletScript, strings.ToLower(wallet.Address())),
		})
		return err
	}))
	return b
}

// hear is told what happens in the browser. It must not wait for it.
func (b *tab) hear(event any) {
	fault := func(format string, args ...any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.faults = append(b.faults, fmt.Sprintf(format, args...))
	}
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		fault("exception: %+v", e.ExceptionDetails)
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" {
			fault("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		if u := e.Request.URL; !strings.HasPrefix(u, b.origin+"/") && !strings.HasPrefix(u, "data:") && u != "about:blank" {
			fault("a request to %s", u)
		}
	}
}

// sign is the wallet.
func (b *tab) sign(_ context.Context, q asked) (string, error) {
	text, err := hex.DecodeString(strings.TrimPrefix(q.Data, "0x"))
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(q.Account, b.wallet.Address()) {
		return "", fmt.Errorf("no account %s", q.Account)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.signed = append(b.signed, string(text))
	return fmt.Sprintf("0x%x", b.wallet.PersonalSign(string(text))), nil
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%v\nfaults: %q\n%s", err, b.faults, valueOf[string](b, "document.body.innerText"))
	}
}

// valueOf is what an expression is in the page.
func valueOf[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Error(expression, err)
	}
	return v
}

func (b *tab) run(script string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](script))
}

// wait waits until a condition holds in the page.
func (b *tab) wait(condition string) {
	b.t.Helper()
	b.do(chromedp.Poll[chromedp.Void](condition, chromedp.WithPollingInterval(30*time.Millisecond), chromedp.WithPollingTimeout(15*time.Second)))
}

// see waits for a text within the element of a selector.
func (b *tab) see(selector, text string) {
	b.t.Helper()
	b.wait(fmt.Sprintf("[...document.querySelectorAll(%q)].some((e) => e.innerText.includes(%q))", selector, text))
}

// clickScript clicks an element once it is seen, enabled, and not below another one. Events of a mouse, which chromedp
// makes, are not always taken by a browser without a window on a busy machine.
const clickScript = `(() => {
  const e = document.querySelector(%q)
  if (!e || e.disabled || !e.checkVisibility()) return false
  e.scrollIntoView({ block: 'center', behavior: 'instant' })
  const r = e.getBoundingClientRect()
  if (!e.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2))) return false
  e.click()
  return true
})()`

func (b *tab) click(selector string) {
	b.t.Helper()
	b.wait(fmt.Sprintf(clickScript, selector))
}

func (b *tab) open(hash string) {
	b.t.Helper()
	b.run(fmt.Sprintf("location.hash = %q", hash))
}

func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.run(fmt.Sprintf("document.querySelector(%q).value = ''", selector))
	b.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// signs has the wallet sign the text that is shown, which has to be what it is asked for, and waits until that is done.
func (b *tab) signs(want string) {
	b.t.Helper()
	b.do(chromedp.WaitVisible(chromedp.CSS("#sign")))
	shown := valueOf[string](b, "document.getElementById('signed-text').textContent")
	if !strings.Contains(shown, want) || !strings.HasPrefix(shown, strings.TrimPrefix(b.origin, "http://")+" wants you to sign in") {
		b.t.Errorf("shown is %q, want %q in it", shown, want)
	}
	b.click("#sign")
	b.wait("!document.getElementById('dialog').open")
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.signed) == 0 || b.signed[len(b.signed)-1] != shown {
		b.t.Errorf("signed is %q, shown was %q", b.signed, shown)
	}
}

// picture writes what is shown where $PAGE_PICTURES says, and looks for controls that a screen reader can't name.
func (b *tab) picture(name string) {
	b.t.Helper()
	// What is folded up has no innerText.
	nameless := valueOf[[]string](b, `[...document.querySelectorAll('input, select, button, a[href], img, meter, svg')].filter((e) =>
		!(e.labels?.length > 0 || (e.closest('details:not([open])') ? e.textContent : e.innerText)?.trim() || e.getAttribute('aria-label') || e.alt || e.hidden))
		.map((e) => e.outerHTML)`)
	if len(nameless) > 0 {
		b.t.Errorf("%s: without a name: %q", name, nameless)
	}
	dir := os.Getenv("PAGE_PICTURES")
	if dir == "" {
		return
	}
	for scheme, size := range map[string][2]int64{"light": {1200, 900}, "dark": {1200, 900}, "phone": {375, 812}} {
		b.do(chromedp.EmulateViewport(size[0], size[1]), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			feature := emulation.MediaFeature{Name: "prefers-color-scheme", Value: strings.Replace(scheme, "phone", "light", 1)}
			still := emulation.MediaFeature{Name: "prefers-reduced-motion", Value: "reduce"}
			_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{&feature, &still}})
			return err
		}))
		png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+"-"+scheme+".png"), png, 0o600)
		}
		if err != nil {
			b.t.Fatal(err)
		}
		if valueOf[bool](b, "document.documentElement.scrollWidth > document.documentElement.clientWidth") {
			b.t.Errorf("%s is wider than a %s", name, scheme)
		}
	}
	b.do(chromedp.EmulateViewport(1200, 900))
}

// hostsSpace has a node host a Space, by its owner's wallet.
func (h host) hostsSpace(t *testing.T, wallet *client.Wallet, space tinycloud.SpaceID) {
	t.Helper()
	did, err := h.admin.HostDID(t.Context(), space)
	if err != nil {
		t.Fatal(err)
	}
	d, err := wallet.Delegate(client.HostGrant(space, did))
	if err == nil {
		_, err = h.admin.Delegate(t.Context(), d.Header)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// app signs in at a node as an app does.
func (h host) app(t *testing.T, wallet *client.Wallet, id tinycloud.SpaceID) *client.Space {
	t.Helper()
	session := client.NewSession()
	d, err := wallet.Delegate(client.Grant{Audience: session.URI(), Abilities: map[string][]string{
		id.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"}, id.String() + "/sql": {"tinycloud.sql/read", "tinycloud.sql/write"},
	}, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	session.Delegation = d
	space := &client.Space{ID: id, Session: session, Host: h.URL()}
	if err := space.Post(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	return space
}

func (h host) space(t *testing.T, id tinycloud.SpaceID) node.SpaceView {
	t.Helper()
	v, err := h.admin.Space(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestBrowser does what the page offers in a real browser, on a node that runs beside another one.
func TestBrowser(t *testing.T) {
	chromium(t)
	here, there, wallet := runHost(t), runHost(t), client.RandomWallet()
	id, err := wallet.Space("default")
	if err != nil {
		t.Fatal(err)
	}
	b := openTab(t, here, wallet)
	b.logsIn(here)
	b.byKeyboard()
	b.hosts(t, here, id)
	b.followsWrites(t, here, id)
	b.invites(t, there)
	b.joins(t, there, id)
	b.sets(t, here, id)
	b.forgets(t, here, id)
	b.removes(t, there, id)
	b.leaves(t, here, id)
	b.open("#/log")
	b.see(".events", "space")
	b.picture("log")
	b.click("nav button.link")
	b.see("main", "Log in")
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) > 0 {
		t.Errorf("the browser says %q", b.faults)
	}
}

func (b *tab) logsIn(h host) {
	b.t.Helper()
	link, err := h.admin.Page(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	b.do(chromedp.Navigate(b.origin))
	b.see("main", "tinycloud-peer page")
	b.picture("login")
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(link.URL))
	b.see("#health", "The node serves")
	at, cookies := valueOf[string](b, "location.href"), valueOf[string](b, "document.cookie")
	if strings.Contains(at, "code") || cookies != "" {
		b.t.Errorf("at %s with the cookies %q", at, cookies)
	}
	b.see("#live", "live")
}

// byKeyboard goes to a section without a mouse, and sees where it is.
func (b *tab) byKeyboard() {
	b.t.Helper()
	b.focused(true)
	defer b.focused(false)
	var at []string
	for range 3 {
		b.do(chromedp.KeyEvent(kb.Tab))
		at = append(at, valueOf[string](b, "document.activeElement.textContent + ' ' + getComputedStyle(document.activeElement).outlineStyle"))
	}
	if want := []string{"Skip to the content solid", "Overview solid", "Spaces solid"}; !slices.Equal(at, want) {
		b.t.Errorf("by tab: %q, want %q", at, want)
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	b.see("h1", "Spaces")
	if valueOf[string](b, "document.activeElement.id") != "main" {
		b.t.Error("the focus stays behind")
	}
}

// focused has the browser believe that somebody looks at it: else keys may wait.
func (b *tab) focused(yes bool) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: yes})
		return err
	}))
}

func (b *tab) hosts(t *testing.T, h host, id tinycloud.SpaceID) {
	t.Helper()
	b.open("#/host")
	b.picture("host")
	b.click("#own button[type=submit]")
	b.do(chromedp.WaitVisible(chromedp.CSS("#sign")))
	b.click("dialog button:not(.primary)") // not yet
	b.wait("!document.getElementById('dialog').open")
	b.click("#own button[type=submit]")
	b.signs(id.String())
	b.see("h1", "default")
	b.see("main", "hosted")
	if v := h.space(t, id); v.Standing != capstore.StandsHost {
		t.Errorf("the node stands as %s", v.Standing)
	}
}

// followsWrites has an app write, which the page shows without being asked.
func (b *tab) followsWrites(t *testing.T, h host, id tinycloud.SpaceID) {
	t.Helper()
	app := h.app(t, b.wallet, id)
	for i := range 3 {
		if err := app.Put(t.Context(), fmt.Sprint("key", i), []byte("value")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := app.Execute(t.Context(), "tasks", "CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT)"); err != nil {
		t.Fatal(err)
	}
	b.wait("[...document.querySelectorAll('.facts > div')].some((e) => e.textContent === 'Keys3')")
	b.see("main", "tasks")
	b.open("#/spaces")
	b.see("#spaces", "default")
	b.fill("#find", "no such space")
	b.see("#spaces", "No Spaces here")
	b.fill("#find", "DEFAULT")
	b.see("#spaces", "default")
	b.picture("spaces")
}

// invites makes an invite, by which the other node pairs itself, and ends that again.
func (b *tab) invites(t *testing.T, there host) {
	t.Helper()
	b.open("#/nodes")
	b.click("#make-invite")
	b.wait("document.querySelector('#invite img')?.naturalWidth > 100")
	invite := valueOf[string](b, "document.querySelector('#invite code').textContent")
	b.picture("nodes")
	if _, err := there.admin.Pair(t.Context(), node.PairRequest{Invite: invite}); err != nil {
		t.Fatal(err)
	}
	b.see("#nodes", "Unpair")
	b.click("#nodes button")
	b.click("#confirm")
	b.see("#nodes", "None yet")
	b.fill("#pair-text", there.Addrs()[0])
	b.click("#pair button[type=submit]")
	b.see("#nodes", "paired")
}

// joins has both nodes be hosts, and find each other.
func (b *tab) joins(t *testing.T, there host, id tinycloud.SpaceID) {
	t.Helper()
	there.hostsSpace(t, b.wallet, id)
	b.open("#/spaces/" + url.PathEscape(id.String()))
	b.fill("#join-addr", there.space(t, id).Addrs[0])
	b.click("#join button[type=submit]")
	b.see("#joins", "Forget")
	b.see("#hosts", "direct")
	b.see("#hosts", "none") // it has no lag
	b.picture("space")
}

func (b *tab) sets(t *testing.T, h host, id tinycloud.SpaceID) {
	t.Helper()
	b.run("document.getElementById('policy').value = 'lazy'; document.getElementById('policy').dispatchEvent(new Event('input'))")
	b.click("#policy-form button[type=submit]")
	b.see("#toasts", "The policy is set")
	b.fill("#quota", "10 MiB")
	b.click("#quota-form button[type=submit]")
	b.see("main", "of 10.0 MiB")
	v := h.space(t, id)
	if v.Policy != capstore.Lazy || v.Limit == nil || *v.Limit != 10<<20 {
		t.Errorf("policy %s, limit %v", v.Policy, v.Limit)
	}
	b.fill("#quota", "plenty")
	b.click("#quota-form button[type=submit]")
	b.see("#toasts", "Expected a size")
	b.fill("#quota", "1")
	b.click("#quota-form button[type=submit]")
	b.see(".alerts", "over its limit")
}

func (b *tab) forgets(t *testing.T, h host, id tinycloud.SpaceID) {
	t.Helper()
	b.click("#joins button[aria-label*='p2p-circuit']")
	b.click("#confirm")
	b.see("#toasts", "The address is forgotten")
	if v := h.space(t, id); slices.ContainsFunc(v.Joins, func(j node.JoinView) bool { return strings.Contains(j.Addr, "p2p-circuit") }) {
		t.Errorf("joins %v", v.Joins)
	}
}

// removes removes the other host.
func (b *tab) removes(t *testing.T, there host, id tinycloud.SpaceID) {
	t.Helper()
	did := there.space(t, id).DID
	b.click(fmt.Sprintf("button[aria-label='Remove the host %s']", did))
	b.signs("Remove the host " + did)
	b.see("#toasts", "The host is removed")
	for deadline := time.Now().Add(10 * time.Second); there.space(t, id).Standing != capstore.StandsRemoved; {
		if time.Now().After(deadline) {
			t.Fatal("the other host does not learn that it was removed")
		}
		b.do(chromedp.Sleep(50 * time.Millisecond))
	}
}

func (b *tab) leaves(t *testing.T, h host, id tinycloud.SpaceID) {
	t.Helper()
	b.click("#leave")
	b.do(chromedp.WaitVisible(chromedp.CSS("#sign")))
	b.picture("sign")
	b.signs("Remove the host " + h.space(t, id).DID)
	b.see("main .badge", "removed")
	b.open("#/")
	b.see(".alerts", "The owner removed this host")
	b.picture("overview")
}
