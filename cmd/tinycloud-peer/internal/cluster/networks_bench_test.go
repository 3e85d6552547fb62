package cluster_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// BenchmarkDecrypt has a client ask for data keys one after the other over HTTP: at the host that has the key, and by way
// of one that is not paired and has none.
func BenchmarkDecrypt(b *testing.B) {
	c, o := cluster.New(cluster.Options{Binary: program(b), Dir: b.TempDir()}), cluster.NewOwner("secrets")
	b.Cleanup(func() { o.Close(); _ = c.Close() })
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range 2 {
		p, err := c.Add(b.Context())
		must(err)
		must(o.Host(b.Context(), p))
		if i > 0 {
			must(o.Join(b.Context(), p, c.Peers()[0]))
		}
	}
	holder, other := c.Peers()[0], c.Peers()[1]
	id, key := networktest.ID(o.Wallet.DID(), "default"), captest.RandomSession()
	session := o.Wallet.SignDelegation(captest.DelegationOptions{Audience: key.URI(), Expires: time.Now().Add(time.Hour), Caps: captest.Caps{
		id: {"tinycloud.encryption/decrypt", "tinycloud.encryption/network.create"},
	}})
	_, err := holder.Admin.Delegate(b.Context(), session)
	must(err)
	_, err = o.AwaitSame(b.Context(), c.Peers())
	must(err)
	info, err := holder.Admin.Node(b.Context())
	must(err)
	client := networktest.Client{Key: key, Node: info.NodeID, Proofs: []tinycloud.Hash{captest.ID(session)}}
	call := func(p *cluster.Peer, path string, q *networktest.Request) cluster.Answer {
		a, err := o.Call(b.Context(), p, http.MethodPost, "/encryption/networks"+path, q.Header(), map[string]string{"Content-Type": "application/json"}, strings.NewReader(q.Text()))
		must(err)
		return a
	}
	made := call(holder, "", client.Create(o.Wallet.DID(), "default"))
	e, _, err := networktest.Encrypt(made.Body, []byte("a secret"))
	must(err)
	must(cluster.Poll(b.Context(), 20*time.Millisecond, func() (bool, error) { // until the other has heard of it
		q, _ := client.Decrypt(id, 1, e.EncryptedSymmetricKey)
		return call(other, "/"+id+"/decrypt", q).Status == http.StatusOK, nil
	}))
	for name, p := range map[string]*cluster.Peer{"local": holder, "forwarded": other} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				q, _ := client.Decrypt(id, 1, e.EncryptedSymmetricKey)
				b.StartTimer()
				began := time.Now()
				if a := call(p, "/"+id+"/decrypt", q); a.Status != http.StatusOK {
					b.Fatal(a.Status, a.Body)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			percentiles(b, took)
		})
	}
}
