package transfer_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

// serve runs a node until the test ends.
func serve(t *testing.T, cfg config.Config) (*node.Node, *admin.Client) {
	t.Helper()
	n, err := node.New(t.Context(), cfg, node.Options{})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	client := admin.Local(cfg.Storage.Datadir)
	t.Cleanup(func() {
		client.Close()
		cancel()
		must(t, <-done)
	})
	return n, client
}

// hostOn has the owner delegate the Space to a node, as a client does.
func (o *old) hostOn(n *node.Node) {
	o.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport}
	call := func(method, path, token string) string {
		r, err := http.NewRequestWithContext(o.t.Context(), method, n.URL()+path, nil)
		must(o.t, err)
		r.Header.Set("Authorization", token)
		resp, err := client.Do(r)
		must(o.t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		must(o.t, err)
		if resp.StatusCode != http.StatusOK {
			o.t.Fatalf("%s: %d %s", path, resp.StatusCode, b)
		}
		return string(b)
	}
	did := call(http.MethodGet, "/peer/generate/"+url.PathEscape(o.space.String()), "")
	call(http.MethodPost, "/delegate", o.wallet.SignHost(o.space, did))
}

// TestReplicated takes a history over on one node and has another join it over the network.
func TestReplicated(t *testing.T) {
	o, where := newFileOld(t)
	o.host("did:key:z6MkiZDbnWyQ1hbsHzc7hnsgZncX885W7quPdTTCPnYoDovY")
	o.fill()
	configure := func() config.Config {
		cfg, _, err := config.Load(config.LoadOptions{Dir: t.TempDir(), Environ: []string{
			"TINYCLOUD_ADDRESS=127.0.0.1", "TINYCLOUD_PORT=0", "TINYCLOUD_PROMETHEUS_PORT=0", "TINYCLOUD_ADMIN_PORT=0",
			"TINYCLOUD_P2P_LISTEN=/ip4/127.0.0.1/tcp/0", "TINYCLOUD_STORAGE_DATADIR=" + filepath.Join(t.TempDir(), "data"),
		}})
		must(t, err)
		return cfg
	}
	one := configure()
	with(t, one, func(d *node.Data) { takeOver(t, d, where, nil, o.blocks) })
	first, ours := serve(t, one)
	o.hostOn(first)
	second, theirs := serve(t, configure())
	o.hostOn(second)
	want, err := ours.Space(t.Context(), o.space)
	must(t, err)
	_, err = theirs.Join(t.Context(), o.space, node.JoinRequest{Addrs: want.Addrs})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := theirs.Space(ctx, o.space)
		must(t, err)
		want, err := ours.Space(ctx, o.space)
		must(t, err)
		if got.StateHash == want.StateHash && got.Epochs == want.Epochs && got.Wants == 0 && got.State == "synced" {
			if got.Void != 0 || want.Void != 0 || got.Keys != 8 || got.Bytes != want.Bytes {
				t.Errorf("%+v, want %+v", got, want)
			}
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%+v, want %+v", got, want)
		}
	}
}
