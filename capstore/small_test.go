package capstore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// recordedTokens are the delegations that were recorded of SDKs and the reference.
func recordedTokens(t *testing.T) map[string]*capstore.Token {
	t.Helper()
	out := map[string]*capstore.Token{}
	for _, file := range []string{"../internal/cacao/testdata/exchanges.json", "internal/ucan/testdata/exchanges.json"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var recorded []struct{ Name, Token string }
		if err := json.Unmarshal(b, &recorded); err != nil {
			t.Fatal(err)
		}
		for _, r := range recorded {
			if tok, err := capstore.ParseDelegation(r.Token); err == nil {
				out[r.Name] = tok
			}
		}
	}
	if len(out) < 20 {
		t.Fatalf("%d recorded delegations", len(out))
	}
	return out
}

// largestTokens are the largest that can be made of what SDKs ask for.
func largestTokens(t *testing.T) map[string]*capstore.Token {
	t.Helper()
	out := map[string]*capstore.Token{}
	parse := func(name, header string) {
		tok, err := capstore.ParseDelegation(header)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = tok
	}
	wallet, session := captest.NewWallet("of many spaces"), captest.NewSession("of many spaces")
	now := time.Now()
	parse("sign-in to five Spaces", wallet.SignDelegation(captest.DelegationOptions{Audience: session.URI(), IssuedAt: now, Expires: now.Add(time.Hour), Caps: fiveSpaces(wallet)}))
	apps := signIn(wallet)
	for i := range 16 {
		at := fmt.Sprintf("%s/kv/xyz.tinycloud.an-application-%d/", wallet.Space("applications"), i)
		apps[at] = []string{"tinycloud.kv/get", "tinycloud.kv/put", "tinycloud.kv/del", "tinycloud.kv/list", "tinycloud.kv/metadata"}
	}
	parse("sign-in with a manifest of 16 applications", wallet.SignDelegation(captest.DelegationOptions{Audience: session.URI(), IssuedAt: now, Expires: now.Add(time.Hour), Caps: apps}))
	type statement struct {
		Name string           `json:"name"`
		SQL  string           `json:"sql"`
		Fix  []map[string]any `json:"fixedParams"`
	}
	var statements []statement
	for i := range 12 {
		statements = append(statements, statement{
			Name: fmt.Sprintf("conversation_by_id_%d", i), SQL: "SELECT " + strings.Repeat("conversation.title, ", 8) + "id FROM conversation WHERE id = ?",
			Fix: []map[string]any{{"index": 0, "value": "conv_0123456789abcdef"}},
		})
	}
	caveat, err := json.Marshal([]any{map[string]any{"mode": "constrained-statements", "readOnly": true, "statements": statements}})
	if err != nil {
		t.Fatal(err)
	}
	parse("share of statements", session.Delegate(captest.NewSession("friend").DID(), captest.TokenOptions{
		Caps:    captest.Caps{wallet.Space("default").String() + "/sql/xyz.tinycloud.listen/conversations": {"tinycloud.sql/read", "tinycloud.sql/select"}},
		Caveats: string(caveat), Proofs: []tinycloud.Hash{{1}}, Expires: now.Add(time.Hour),
		Facts: []json.RawMessage{json.RawMessage(`{"app":"xyz.tinycloud.listen","name":"` + strings.Repeat("n", 500) + `"}`)},
	}))
	return out
}

// signIn is what an SDK asks for without a manifest.
func signIn(w *captest.Wallet) captest.Caps {
	all, caps := fiveSpaces(w), captest.Caps{}
	at := func(space, path string) string { return w.Space(space).String() + path }
	for _, service := range []string{"/kv", "/sql", "/duckdb", "/capabilities", "/hooks"} {
		caps[at("default", service)] = all[at("default", service)]
	}
	for _, path := range []string{"/kv/applications/", "/kv/spaces/", "/kv/system/bootstrap/complete"} {
		caps[at("account", path)] = all[at("account", "/kv")]
	}
	caps[at("secrets", "/kv/vault/secrets/")] = all[at("secrets", "/kv")]
	caps[at("account", "/delegation")] = []string{"tinycloud.delegation/list"}
	caps[at("account", "/sql/account")] = []string{"tinycloud.sql/read", "tinycloud.sql/write", "tinycloud.sql/schema"}
	caps[at("account", "/capabilities")] = []string{"tinycloud.capabilities/read"}
	caps["urn:tinycloud:encryption:"+string(w.DID())+":default"] = []string{"tinycloud.encryption/decrypt", "tinycloud.encryption/network.create"}
	return caps
}

// fiveSpaces is what an SDK asks for at sign-in, in each of an account's Spaces all of what it asks for in the first.
func fiveSpaces(w *captest.Wallet) captest.Caps {
	caps := captest.Caps{}
	for _, name := range []string{"default", "applications", "account", "secrets", "public"} {
		for service, abilities := range map[string]string{
			"kv": "put get del list metadata", "sql": "read write schema admin export", "duckdb": "read write admin describe export import execute",
			"capabilities": "read", "hooks": "subscribe register list unregister", "delegation": "list",
		} {
			for a := range strings.FieldsSeq(abilities) {
				at := w.Space(name).String() + "/" + service
				caps[at] = append(caps[at], "tinycloud."+service+"/"+a)
			}
		}
	}
	return caps
}

// The bounds of what is posted leave room for whatever apps make: four times what was ever recorded.
func TestRealTokensAreSmall(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tokens map[string]*capstore.Token
		most   int // bytes
	}{
		{"recorded", recordedTokens(t), capstore.MaxDelegation / 4},
		{"the largest that SDKs make", largestTokens(t), capstore.MaxDelegation * 7 / 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, tok := range tt.tokens {
				facts := 0
				for _, f := range tok.Facts {
					facts += len(f)
				}
				if len(tok.Bytes) > tt.most || facts > capstore.MaxDelegationFacts/4 {
					t.Errorf("%s: %d bytes, facts of %d", name, len(tok.Bytes), facts)
				}
			}
		})
	}
}

// What is kept of a token for verdicts says the same as the token, in less memory.
func TestLeanTokens(t *testing.T) {
	all := recordedTokens(t)
	maps.Copy(all, largestTokens(t))
	for name, tok := range all {
		lean, want := *tok.Lean(), *tok
		if lean.Bytes != nil || lean.Facts != nil || lean.Size() > tok.Size()-len(tok.Bytes) {
			t.Errorf("%s: %d bytes of %d", name, lean.Size(), tok.Size())
		}
		want.Bytes, want.Facts, want.TargetText = nil, nil, ""
		want.Caps = slices.Clone(tok.Caps)
		for i := range want.Caps {
			want.Caps[i].URI, want.Caps[i].Place = "", 0
		}
		same := cmp.Comparer(func(a, b tinycloud.Resource) bool { return a == b })
		if diff := cmp.Diff(want, lean, same, cmpopts.IgnoreUnexported(capstore.Token{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		for i, c := range lean.Caps { // none and an empty list differ
			if (c.Caveats == nil) != (tok.Caps[i].Caveats == nil) {
				t.Errorf("%s: caveats %q, want %q", name, c.Caveats, tok.Caps[i].Caveats)
			}
		}
		if err := tok.Stored().VerifySignature(); err != nil && tok.VerifySignature() == nil {
			t.Errorf("%s: as it is stored: %v", name, err)
		}
	}
}

// What is posted is small; what a history has of larger tokens stays, and counts.
func TestLargeDelegations(t *testing.T) {
	onScene(t, func(c *scene) {
		caps := c.kv("/"+strings.Repeat("k", 3000), "tinycloud.kv/get")
		for i := range 4 {
			caps[c.o.space.String()+"/kv/"+fmt.Sprint(i)+strings.Repeat("k", 3000)] = []string{"tinycloud.kv/get"}
		}
		caps[c.o.space.String()+"/kv"] = []string{"tinycloud.kv/put"}
		later := captest.NewSession("later")
		large := c.delegation(c.o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: later.URI(), IssuedAt: c.o.clock.now(), Expires: c.o.clock.now().Add(time.Hour), Caps: caps,
		}))
		if len(large.token.Bytes) <= capstore.MaxDelegation {
			t.Fatal(len(large.token.Bytes))
		}
		_, err := c.s.Delegate(t.Context(), large.token)
		if !errors.Is(err, tinycloud.ErrTooLarge) || err.Error() != "The token exceeds the limit of 16384 bytes" {
			t.Errorf("posted: %v", err)
		}
		facts := c.delegation(c.o.session.Delegate("did:key:zFriend", captest.TokenOptions{
			Caps: c.kv("/k", "tinycloud.kv/get"), Proofs: []tinycloud.Hash{c.o.proof}, Expires: c.o.clock.now().Add(time.Minute),
			Facts: []json.RawMessage{json.RawMessage(`"` + strings.Repeat("f", capstore.MaxDelegationFacts) + `"`)},
		}))
		_, err = c.s.Delegate(t.Context(), facts.token)
		if !errors.Is(err, tinycloud.ErrTooLarge) || err.Error() != "The facts (fct) of the token exceed the limit of 4096 bytes" {
			t.Errorf("facts: %v", err)
		}

		c.says(c.l, nil, large)
		if _, err := c.s.Delegate(t.Context(), large.token); err != nil {
			t.Errorf("once it is known: %v", err)
		}
		tok := c.invokes(later, captest.TokenOptions{Proofs: []tinycloud.Hash{large.token.ID}}, "k")
		c.says(c.l, nil, said{tok, []dag.Op{write("k", "k")}})
		c.counts("k", true)
	})
}

// A member of a Space fills a share of its memory with delegations, others of it another; the owner adds to what all of
// them fill, and ends them.
func TestDelegationsOfASpaceAreBounded(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	s := open(t, "one", c, capstore.InMemory)
	o.hostOn(s)
	s.delegate(o.header)
	abilities := make([]string, 250)
	for i := range abilities {
		abilities[i] = fmt.Sprint("tinycloud.kv/a", i)
	}
	caps := captest.Caps{o.space.String() + "/kv": append(abilities, "tinycloud.kv/put")}
	n := 0
	var refused error
	fill := func(member string) (last *capstore.Token) {
		key := captest.NewSession(member)
		parent := o.wallet.SignDelegation(captest.DelegationOptions{Audience: key.URI(), IssuedAt: c.now(), Expires: c.now().Add(time.Hour), Caps: caps})
		s.delegate(parent)
		for range 120 {
			n++
			header := key.Delegate("did:key:zFriend", captest.TokenOptions{
				Caps: captest.Caps{fmt.Sprint(o.space, "/kv/", n): abilities}, Proofs: []tinycloud.Hash{captest.ID(parent)}, Expires: c.now().Add(time.Minute),
			})
			tok, err := capstore.ParseDelegation(header)
			if err != nil {
				t.Fatal(err)
			}
			if _, refused = s.Delegate(t.Context(), tok); refused != nil {
				return last
			}
			last = tok
		}
		return last
	}
	last := fill("member")
	if !errors.Is(refused, tinycloud.ErrTooLarge) || !strings.Contains(refused.Error(), "The delegations of did:key:") {
		t.Errorf("one member: %v", refused)
	}
	for i := range 3 {
		fill(fmt.Sprint("member ", i))
	}
	if !errors.Is(refused, tinycloud.ErrTooLarge) || !strings.Contains(refused.Error(), "The delegations of the space") {
		t.Errorf("all members: %v", refused)
	}
	if err := s.Revoke(t.Context(), o.revocation(t, last.ID)); err != nil {
		t.Errorf("the owner revokes: %v", err)
	}
	s.delegate(o.wallet.SignDelegation(captest.DelegationOptions{Audience: o.session.URI(), IssuedAt: c.now(), Expires: c.now().Add(time.Hour), Caps: caps}))
	mustPut(t, o, s, "k", "v")
	facts, remembered := capstore.Memory(s.Store)
	if facts > capstore.MaxSpaceFacts || remembered > capstore.RememberedTokenSize {
		t.Errorf("%d bytes of facts, %d of tokens", facts, remembered)
	}
}

// The delegations of Spaces that are not written to make way; what one takes in memory is about what is counted.
func TestLoadedFactsAreBounded(t *testing.T) {
	c := newClock()
	const spaces, each, most = 6, 40, 4 << 20
	path := newDatabase(t)
	small := func(s *capstore.Store) { capstore.SetMostLoaded(s, most) }
	s := openWith(t, "one", c, path, func(*capstore.Options) {}, small)
	abilities := make([]string, 240)
	for i := range abilities {
		abilities[i] = fmt.Sprint("tinycloud.kv/a", i)
	}
	var owners []*owner
	for i := range spaces {
		o := newOwner(t, fmt.Sprint("owner ", i), c)
		o.hostOn(s)
		s.delegate(o.header)
		owners = append(owners, o)
		for n := range each {
			s.delegate(o.wallet.SignDelegation(captest.DelegationOptions{
				Audience: o.session.URI(), IssuedAt: c.now(), Expires: c.now().Add(time.Hour), Caps: captest.Caps{fmt.Sprint(o.space, "/kv/", n): abilities},
			}))
		}
		if facts, _ := capstore.Memory(s.Store); facts > most {
			t.Errorf("%d bytes of facts", facts)
		}
	}
	s.stop()
	before := heap()
	s = openWith(t, "one", c, path, func(*capstore.Options) {}, small)
	for _, o := range owners {
		mustPut(t, o, s, "k", "v")
	}
	facts, remembered := capstore.Memory(s.Store)
	if facts > most || facts == 0 {
		t.Errorf("%d bytes of facts", facts)
	}
	// The store takes some, and both counts are about.
	if took := int(heap()) - int(before); took > 2*(facts+remembered)+8<<20 {
		t.Errorf("%d bytes for %d of facts and %d of tokens", took, facts, remembered)
	}
	runtime.KeepAlive(s)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Where the owner has granted as much as is kept, apps that were used before are still signed in to.
func TestSignInsGoOn(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	s := open(t, "one", c, capstore.InMemory)
	o.hostOn(s)
	grant := func(nonce string, abilities []string) error {
		tok, err := capstore.ParseDelegation(o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: o.session.URI(), IssuedAt: c.now(), Expires: c.now().Add(time.Hour), Nonce: nonce, Caps: captest.Caps{o.space.String() + "/kv": abilities},
		}))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Delegate(t.Context(), tok)
		return err
	}
	abilities := make([]string, 250)
	for i := range abilities {
		abilities[i] = fmt.Sprint("tinycloud.kv/a", i)
	}
	known := slices.Clone(abilities)
	var refused error
	for n := 0; refused == nil && n < 1000; n++ {
		refused = grant(fmt.Sprint("nonce000", n), abilities)
		abilities[0] = fmt.Sprint("tinycloud.kv/another", n)
	}
	if !errors.Is(refused, tinycloud.ErrTooLarge) {
		t.Fatal(refused)
	}
	if err := grant("noncesignin", known); err != nil {
		t.Errorf("once more: %v", err)
	}
}
