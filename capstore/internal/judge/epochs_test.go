package judge

import (
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// docs/replication.md, "Epochs": an entry is at least as late as F of the parents of its epoch, less 120 s.
func TestEarliest(t *testing.T) {
	const f = noon
	for _, tt := range []struct {
		name string
		at   int64
		want bool
	}{
		{"later", f + 1, true},
		{"at the same time", f, true},
		{"120 s earlier", f - 120*sec, true},
		{"more than that", f - 120*sec - 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.at >= Earliest(f); got != tt.want {
				t.Errorf("not too early: %v, want %v", got, tt.want)
			}
		})
	}
}

// docs/replication.md, "Epochs": who may extend the history. A host delegation, in its window at the time of the entry,
// stands in the epoch or its past and leads to the owner.
func TestHost(t *testing.T) {
	boss := hostBy(owner, ann)
	manager := hostBy(ann, ben, by(boss))
	otherHost := "space/host on " + otherSpace.String() + "/space"
	unknown := hostBy(owner, ben)
	ofPath := grant(owner, cat, "space/host on space/x")
	ucan := []aspect{from(start), until(after(1000))}
	cacao := append([]aspect{func(t *token.Token) { t.OpenStart = true }}, ucan...)
	for _, tt := range []struct {
		name string
		in   placed
		at   int64
		void string
	}{
		{"in the epoch", placed{hostBy(owner, hostX), in(1, 5, 0)}, 0, ""},
		{"anywhere in the epoch", placed{hostBy(owner, hostX), in(1, 5, 999)}, 0, ""},
		{"in its past", placed{hostBy(owner, hostX), in(1, 4, 0)}, 0, ""},
		{"after it", placed{hostBy(owner, hostX), in(1, 6, 0)}, 0, "no host delegation"},
		{"beside it", placed{hostBy(owner, hostX), in(2, 0, 0)}, 0, "no host delegation"},
		{"to another host", placed{hostBy(owner, hostY), in(1, 4, 0)}, 0, "no host delegation"},

		{"before its window", placed{hostBy(owner, hostX, ucan...), in(1, 4, 0)}, -1, "not in its window"},
		{"at its begin", placed{hostBy(owner, hostX, ucan...), in(1, 4, 0)}, 0, ""},
		{"at the begin of a CACAO", placed{hostBy(owner, hostX, cacao...), in(1, 4, 0)}, 0, "not in its window"},
		{"after the begin of a CACAO", placed{hostBy(owner, hostX, cacao...), in(1, 4, 0)}, 1, ""},
		{"at its end", placed{hostBy(owner, hostX, cacao...), in(1, 4, 0)}, 1000, ""},
		{"after its end", placed{hostBy(owner, hostX, cacao...), in(1, 4, 0)}, 1001, "not in its window"},

		{"by who may let hosts in", placed{hostBy(ann, hostX, by(boss)), in(1, 4, 0)}, 0, ""},
		{"by who was let by them", placed{hostBy(ben, hostX, by(manager)), in(1, 4, 0)}, 0, ""},
		{"by a stranger", placed{hostBy(mallory, hostX), in(1, 4, 0)}, 0, "its issuer may not"},
		{"by a stranger with a proof that is not his", placed{hostBy(mallory, hostX, by(boss)), in(1, 4, 0)}, 0, "its issuer may not"},
		{"by a proof that is not known", placed{hostBy(ben, hostX, by(unknown)), in(1, 4, 0)}, 0, "its issuer may not"},

		{"by who may on a path alone", placed{grant(cat, hostX, "space/host on space; space/host on space/x", by(ofPath)), in(1, 4, 0)}, 0, "its issuer may not"},
		{"by the owner of another Space", placed{grant(otherSpace.Owner(), hostX, "space/host on space; "+otherHost), in(1, 4, 0)}, 0, "its issuer may not"},
		{"by who may do other things", placed{grant(ann, hostX, "kv/put on kv; space/host on space", by(grant(owner, ann, "kv/put on kv"))), in(1, 4, 0)}, 0, "its issuer may not"},

		{"of another ability", placed{grant(owner, hostX, "kv/put on space"), in(1, 4, 0)}, 0, "no host delegation"},
		{"of another service", placed{grant(owner, hostX, "space/host on kv"), in(1, 4, 0)}, 0, "no host delegation"},
		{"of a path", placed{grant(owner, hostX, "space/host on space/"), in(1, 4, 0)}, 0, "no host delegation"},
		{"of a fragment", placed{grant(owner, hostX, "space/host on space#a"), in(1, 4, 0)}, 0, "no host delegation"},
		{"of another Space", placed{grant(otherSpace.Owner(), hostX, otherHost), in(1, 4, 0)}, 0, "no host delegation"},
		{"of another Space too", placed{grant(owner, hostX, "space/host on space; "+otherHost), in(1, 4, 0)}, 0, ""},
		{"of other things too", placed{grant(owner, hostX, "kv/put on kv; space/host on space"), in(1, 4, 0)}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			facts := known([]*token.Token{boss, manager, ofPath, grant(owner, ann, "kv/put on kv")}, tt.in)
			d, err := facts.Host(keyX, after(tt.at), seenFrom(1, 5, 0))
			verdict(t, err, tt.void)
			if err == nil && d.ID != tt.in.token.ID {
				t.Errorf("by %+v", d)
			}
			verdict(t, facts.Able(keyX, after(tt.at), seenFrom(1, 5, 0)), tt.void)
		})
	}
	t.Run("by one of two", func(t *testing.T) {
		over, good := hostBy(owner, hostX, until(after(-1))), hostBy(owner, hostX)
		facts := known([]*token.Token{over, good})
		if d, err := facts.Host(keyX, start, seenFrom(1, 5, 0)); err != nil || d.ID != good.ID {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// docs/replication.md, "Imports": the delegation of who vouches for an imported history may stand anywhere and begin at any
// time. It has not expired at the time of the entry.
func TestImporter(t *testing.T) {
	boss := hostBy(owner, ann)
	for _, tt := range []struct {
		name string
		in   []placed
		at   int64
		void string
	}{
		{"beside", []placed{{hostBy(owner, hostX), in(2, 9, 0)}}, 0, ""},
		{"by who may let hosts in", []placed{{boss, in(2, 8, 0)}, {hostBy(ann, hostX, by(boss)), in(2, 9, 0)}}, 0, ""},
		{"before its begin", []placed{{hostBy(owner, hostX, from(after(5))), in(2, 9, 0)}}, 0, ""},
		{"at its end", []placed{{hostBy(owner, hostX, until(after(5))), in(2, 9, 0)}}, 5, ""},
		{"after it", []placed{{hostBy(owner, hostX, until(after(5))), in(2, 9, 0)}}, 6, "no host delegation"},
		{"none", nil, 0, "no host delegation"},
		{"to another host", []placed{{hostBy(owner, hostY), in(2, 9, 0)}}, 0, "no host delegation"},
		{"by a stranger", []placed{{hostBy(mallory, hostX), in(2, 9, 0)}}, 0, "no host delegation"},
		{"by one of two", []placed{{hostBy(owner, hostX, until(after(-1))), in(1, 0, 0)}, {hostBy(owner, hostX), in(2, 9, 0)}}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			facts := known(nil, tt.in...)
			verdict(t, facts.Importer(keyX, after(tt.at), nil), tt.void)
			verdict(t, facts.AbleImporter(keyX, after(tt.at)), tt.void)
		})
	}
}

// docs/protocol.md, "Keys of a node": both spellings of a key are the same host.
func TestHostOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		did  tinycloud.Principal
		want bool
	}{
		{"today's spelling", hostX, true},
		{"that of version 1.0.0", multikey(0xed, 0, keyX), true},
		{"another host", hostY, false},
		{"another multicodec that begins alike", multikey(0xed, 2, keyX), false},
		{"another method", ann, false},
		{"no key", "did:key:", false},
		{"no multibase", "did:key:" + hostX[len("did:key:z"):], false},
		{"another kind of key", "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme", false},
		{"more behind it", hostX + "11111111111111111111", false},
		{"a wallet", owner, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, ok := hostlog.KeyOf(tt.did)
			if got := ok && h == keyX; got != tt.want {
				t.Errorf("is the host: %v, want %v", got, tt.want)
			}
		})
	}
}
