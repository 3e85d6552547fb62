package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// ask sends one invocation that has to be answered with 200.
func ask(ctx context.Context, o *cluster.Owner, p *cluster.Peer, token string, header map[string]string, body io.Reader) (string, error) {
	a, err := o.Call(ctx, p, http.MethodPost, "/invoke", token, header, body)
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("%d %.200s", a.Status, a.Body)
	}
	return a.Body, err
}

// BenchmarkBatch measures batches of 100 keys with 1 KiB each, from one client.
func BenchmarkBatch(b *testing.B) {
	const keys = 100
	c, o := hosts(b, 1, false)
	p := c.Peers()[0]
	pairs := func(ability string) (out []string) {
		for i := range keys {
			out = append(out, fmt.Sprintf("kv/batch/%02d", i), "tinycloud.kv/"+ability)
		}
		return out
	}
	put := func(ctx context.Context, round int) error {
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		for i := range keys {
			w, err := form.CreateFormField(fmt.Sprintf("batch%%2F%02d", i))
			if err == nil {
				_, err = w.Write(value(round*keys + i))
			}
			if err != nil {
				return err
			}
		}
		if err := form.Close(); err != nil {
			return err
		}
		_, err := ask(ctx, o, p, o.Token(pairs("put")...), map[string]string{"Content-Type": form.FormDataContentType()}, &body)
		return err
	}
	get := func(ctx context.Context, _ int) error {
		_, err := ask(ctx, o, p, o.Token(pairs("get")...), nil, nil)
		return err
	}
	if err := put(b.Context(), 0); err != nil {
		b.Fatal(err)
	}
	for name, op := range map[string]func(context.Context, int) error{"put": put, "get": get} {
		b.Run(name, func(b *testing.B) {
			took := drive(b, 1, b.N, op)
			b.ReportMetric(keys*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
			percentiles(b, took)
		})
	}
}

// BenchmarkList measures a page of 1,000 keys in the middle of a Space of 100,000.
func BenchmarkList(b *testing.B) {
	const perBatch, batches = 200, 500 // a token has at most 64 KiB
	c, o := hosts(b, 1, false)
	p := c.Peers()[0]
	fill := func(ctx context.Context, n int) error {
		var pairs []string
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		for i := range perBatch {
			key := fmt.Sprintf("%06d", n*perBatch+i)
			pairs = append(pairs, "kv/"+key, "tinycloud.kv/put")
			w, err := form.CreateFormField(key)
			if err == nil {
				_, err = io.WriteString(w, key)
			}
			if err != nil {
				return err
			}
		}
		if err := form.Close(); err != nil {
			return err
		}
		_, err := ask(ctx, o, p, o.Token(pairs...), map[string]string{"Content-Type": form.FormDataContentType()}, &body)
		return err
	}
	drive(b, 4, batches, fill)
	limit := map[string]string{"X-Tinycloud-Limit": "1000"}
	for range 50 { // to the middle
		a, err := o.Call(b.Context(), p, http.MethodPost, "/invoke", o.Token("kv/", "tinycloud.kv/list"), limit, nil)
		if err != nil || a.Status != http.StatusOK {
			b.Fatal(err, a)
		}
		limit["X-Tinycloud-Cursor"] = a.Header.Get("X-Tinycloud-Next-Cursor")
	}
	b.ResetTimer()
	took := drive(b, 1, b.N, func(ctx context.Context, _ int) error {
		_, err := ask(ctx, o, p, o.Token("kv/", "tinycloud.kv/list"), limit, nil)
		return err
	})
	percentiles(b, took)
}

// BenchmarkChain measures a get under a chain of 1 to 8 delegations.
func BenchmarkChain(b *testing.B) {
	c, o := hosts(b, 1, false)
	p := c.Peers()[0]
	if err := o.Put(b.Context(), p, "read", value(0)); err != nil {
		b.Fatal(err)
	}
	resource := o.Space.String() + "/kv"
	holder := captest.RandomSession()
	expires := time.Now().Add(time.Hour)
	header := o.Wallet.SignDelegation(captest.DelegationOptions{
		Audience: holder.URI(), Expires: expires, Caps: captest.Caps{resource: {"tinycloud.kv/get"}},
	})
	for depth := 1; depth <= 8; depth++ {
		if _, err := p.Admin.Delegate(b.Context(), header); err != nil {
			b.Fatal(err)
		}
		proofs := []tinycloud.Hash{captest.ID(header)}
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			took := drive(b, 1, b.N, func(ctx context.Context, _ int) error {
				token := holder.Invoke(captest.TokenOptions{Caps: captest.Caps{resource + "/read": {"tinycloud.kv/get"}}, Proofs: proofs})
				_, err := ask(ctx, o, p, token, nil, nil)
				return err
			})
			percentiles(b, took)
		})
		next := captest.RandomSession()
		header = holder.Delegate(next.DID(), captest.TokenOptions{
			Caps: captest.Caps{resource: {"tinycloud.kv/get"}}, Proofs: proofs, Expires: expires,
		})
		holder = next
	}
}
