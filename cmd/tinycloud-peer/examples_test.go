package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// TestExamples runs the examples of apps against two nodes that are paired: what one puts through the first it reads at
// the second. Interpreters and packages are those of scripts/install; without them an example is left out.
func TestExamples(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	g := startGroup(t, 0)
	a, b := g.add(), g.add()
	invite, err := a.Admin.Invite(g.ctx, node.InviteRequest{Expires: "1h"})
	g.must(err)
	_, err = b.Admin.Pair(g.ctx, node.PairRequest{Invite: invite.Invite})
	g.must(err)
	// Packages of Node.js are found beside the file that imports them.
	beside := t.TempDir()
	g.must(os.CopyFS(beside, os.DirFS(filepath.Join(root, "examples/node"))))
	g.must(os.Symlink(filepath.Join(root, "bin/node/node_modules"), filepath.Join(beside, "node_modules")))
	python := filepath.Join(root, "bin/python/bin/python")
	for _, tt := range []struct {
		name, needs, program, script string
		said                         []string
	}{
		{"python", python, python, filepath.Join(root, "examples/python/notes.py"), []string{"written with Python", "note/1", "water the plants"}},
		{"secret", python, python, filepath.Join(root, "examples/python/secret.py"), []string{"secret correct horse battery staple"}},
		{"node", filepath.Join(root, "bin/node/node_modules"), "node", filepath.Join(beside, "notes.js"), []string{"written with JavaScript", "note/1", "water the plants"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := os.Stat(tt.needs); err != nil {
				t.Skip("scripts/install did not get its packages")
			}
			run := exec.CommandContext(g.ctx, tt.program, tt.script, a.URL, b.URL)
			run.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
			out, err := run.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range tt.said {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}

// TestAppDocument checks that the bytes in docs/app.md are those that come of the keys it names.
func TestAppDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/app.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "\n", "")
	key := func(b byte) (k [32]byte) {
		for i := range k {
			k[i] = b
		}
		return k
	}
	wallet, session := captest.WalletOf(key(0x11)), captest.SessionOf(key(0x22))
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	header := wallet.SignDelegation(captest.DelegationOptions{
		Audience: session.URI(), Caps: captest.Caps{wallet.Space("notes").String() + "/kv": {"tinycloud.kv/get", "tinycloud.kv/put"}},
		IssuedAt: at, Expires: at.Add(24 * time.Hour), Nonce: "6e6f6e63656f6e6c796f6e63650001", Domain: "app.example.com",
	})
	for _, want := range []string{wallet.Space("notes").String(), string(session.DID()), header, captest.ID(header).EventID()} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	from := strings.Index(text, "eyJhbGciOiJFZERTQSIs")
	if from < 0 {
		t.Fatal("no invocation")
	}
	token, _, _ := strings.Cut(text[from:], "`")
	inv, err := capstore.ParseInvocation(token)
	if err != nil {
		t.Fatal(err)
	}
	if err := inv.VerifySignature(); err != nil || len(inv.Proofs) != 1 || inv.Proofs[0] != captest.ID(header) {
		t.Errorf("%v, %v", err, inv.Proofs)
	}
}
