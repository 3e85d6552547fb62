package capstore_test

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/tickets"
)

func (o *owner) ticket(s *testStore, key string) (tickets.ID, tickets.Ticket, error) {
	s.t.Helper()
	tok := o.invoke(s.t, key, "tinycloud.kv/get")
	if err := s.AdmitReusable(s.t.Context(), tok); err != nil {
		s.t.Fatal(err)
	}
	return tickets.Of(s.Store, 0).Issue(s.t.Context(), tok, tickets.Request{Space: o.space, Key: key, Life: time.Minute})
}

// signedIn is a store with a Space that holds the key k.
func signedIn(t *testing.T) (*testStore, *owner) {
	t.Helper()
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	if err := o.put(s, "k", "value"); err != nil {
		t.Fatal(err)
	}
	return s, o
}

func refused(t *testing.T, what string, err, class error, text string) {
	t.Helper()
	var refusal *tinycloud.Refusal
	if !errors.Is(err, class) || !errors.As(err, &refusal) || refusal.Text != text {
		t.Errorf("%s: %v, want %s", what, err, text)
	}
}

func TestTicket(t *testing.T) { everywhere(t, testTicket) }

func testTicket(t *testing.T) {
	s, o := signedIn(t)
	id, issued, err := o.ticket(s, "k")
	if err != nil {
		t.Fatal(err)
	}
	if end := s.clock.now().Add(time.Minute); !issued.Expires.Equal(end) || issued.Value != tinycloud.Sum([]byte("value")) {
		t.Errorf("%+v, want it to end at %v", issued, end)
	}
	parsed, ok := tickets.ParseID(id.String())
	if !ok || parsed != id {
		t.Errorf("%s: %v", id, ok)
	}
	k, err := tickets.Of(s.Store, 0).Find(t.Context(), parsed)
	if err != nil || k.Space != o.space || k.Key != "k" || k.Value != issued.Value || !k.Expires.Equal(issued.Expires) {
		t.Errorf("%+v: %v", k, err)
	}
	_, err = tickets.Of(s.Store, 0).Find(t.Context(), tickets.ID{})
	refused(t, "unknown", err, tinycloud.ErrUnauthorized, "signed URL ticket not found")

	s.clock.ms.Add(60_000)
	_, err = tickets.Of(s.Store, 0).Find(t.Context(), id)
	refused(t, "at its end", err, tinycloud.ErrUnauthorized, "signed URL expired")
	s.clock.ms.Add(11 * 60_000)
	if _, _, err := o.ticket(s, "k"); err != nil {
		t.Fatal(err)
	}
	_, err = tickets.Of(s.Store, 0).Find(t.Context(), id)
	refused(t, "long after", err, tinycloud.ErrUnauthorized, "signed URL ticket not found")
}

// TestTicketNeedsNoCaveats: a URL would not keep the caveats under which its signer may read.
func TestTicketNeedsNoCaveats(t *testing.T) { everywhere(t, testTicketNeedsNoCaveats) }

func testTicketNeedsNoCaveats(t *testing.T) {
	s, o := signedIn(t)
	const caveats = `[{"max":1}]`
	bob, caps := captest.NewSession("bob"), captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/get"}}
	header := o.session.Delegate(bob.DID(), captest.TokenOptions{
		Caps: caps, Caveats: caveats, Proofs: []tinycloud.Hash{o.proof}, Expires: s.clock.now().Add(time.Hour),
	})
	s.delegate(header)
	tok, err := capstore.ParseInvocation(bob.Invoke(captest.TokenOptions{
		Caps: caps, Caveats: caveats, Proofs: []tinycloud.Hash{captest.ID(header)}, Expires: s.clock.now().Add(time.Minute),
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AdmitReusable(t.Context(), tok); err != nil {
		t.Fatal(err)
	}
	_, _, err = tickets.Of(s.Store, 0).Issue(t.Context(), tok, tickets.Request{Space: o.space, Key: "k", Life: time.Minute})
	refused(t, "with caveats", err, tinycloud.ErrForbidden, "signed URL scope is not authorized")
}

// TestTicketSecret: neither the id of a ticket nor its invocation is in the files.
func TestTicketSecret(t *testing.T) {
	s, o := signedIn(t)
	tok := o.invoke(t, "k", "tinycloud.kv/get")
	id, _, err := tickets.Of(s.Store, 0).Issue(t.Context(), tok, tickets.Request{Space: o.space, Key: "k", Life: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	signature := tok.Bytes[bytes.LastIndexByte(tok.Bytes, '.'):]
	var found bool
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(s.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, id[:]) || bytes.Contains(b, []byte(id.String())) {
			t.Errorf("the id is in caps.db%s", suffix)
		}
		if bytes.Contains(b, signature) {
			t.Errorf("the invocation is in caps.db%s", suffix)
		}
		hash := tinycloud.Sum(id[:])
		found = found || bytes.Contains(b, hash[:])
	}
	if !found {
		t.Error("the files hold no digest of the id: the test looks at the wrong ones")
	}
}

// TestTicketMigration brings a database that knows no tickets up to date.
func TestTicketMigration(t *testing.T) {
	c := newClock()
	path := filepath.Join(t.TempDir(), "caps.db")
	s, o := open(t, "one", c, path), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	if err := o.put(s, "k", "value"); err != nil {
		t.Fatal(err)
	}
	s.stop()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"DROP TABLE tickets", "DELETE FROM goose_db_version WHERE version_id = 2"} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, "one", c, path)
	id, _, err := o.ticket(s, "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tickets.Of(s.Store, 0).Find(t.Context(), id); err != nil || s.get(o.space, "k") != "value" {
		t.Errorf("after the migration: %v", err)
	}
}

func FuzzTicketID(f *testing.F) {
	for _, text := range []string{"", "unknown", strings.Repeat("A", 43), strings.Repeat("_", 43), strings.Repeat("A", 43) + "\n", strings.Repeat("A", 42) + "="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if id, ok := tickets.ParseID(text); ok && id.String() != text {
			t.Errorf("%q is another spelling of %s", text, id)
		}
	})
}
