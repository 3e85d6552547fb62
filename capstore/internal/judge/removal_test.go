package judge

import (
	"fmt"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// docs/replication.md, "Removed hosts": a removal ends the delegation it names, older ones to the same key that its signer may
// revoke too, and those that lead to the owner only through these.
func TestWhatARemovalEnds(t *testing.T) {
	at := func(ms int64) aspect { return issued(after(ms)) }
	boss, deputy := hostBy(owner, ann, at(0)), hostBy(owner, cat, at(0))
	manager := hostBy(ann, ben, by(boss), at(0))
	toAnn := hostBy(cat, ann, by(deputy), at(0)) // ann has the right from the owner, by boss, and from cat
	x0 := hostBy(owner, hostX, at(0))
	d := map[string]*token.Token{
		"boss": boss, "deputy": deputy, "manager": manager,
		"x0": x0, "x1": hostBy(owner, hostX, at(1)), "x2": hostBy(owner, hostX, at(2)),
		"x undated": hostBy(owner, hostX), "x early": hostBy(owner, earlySpelling(keyX), at(0)),
		"x of ann": hostBy(ann, hostX, by(boss), at(0)), "x of ben": hostBy(ben, hostX, by(manager), at(0)),
		"x of ann twice": hostBy(ann, hostX, by(boss, toAnn), at(0)), "x stolen": hostBy(mallory, hostX, at(0)),
		"y": hostBy(owner, hostY, at(0)), "y of ben": hostBy(ben, hostY, by(manager), at(0)), "y of x": hostBy(hostX, hostY, by(x0), at(0)), "y stolen": hostBy(mallory, hostY, at(0)),
		"kv": grant(owner, ann, "kv/put on kv"),
	}
	for _, tt := range []struct {
		name       string
		known      []string
		revocation *token.Token
		want       []string
	}{
		{"what it names", []string{"x0", "y"}, revoke(owner, x0, at(0)), []string{"x0"}},
		{"older ones of the key, and of the same time", []string{"x0", "x1", "x2"}, revoke(owner, d["x2"], at(1)), []string{"x0", "x1", "x2"}},
		{"not younger ones", []string{"x0", "x1", "x2"}, revoke(owner, x0, at(1)), []string{"x0", "x1"}},
		{"not undated ones", []string{"x0", "x undated"}, revoke(owner, x0, at(9)), []string{"x0"}},
		{"an undated one that it names", []string{"x0", "x undated"}, revoke(owner, d["x undated"], at(9)), []string{"x undated", "x0"}},
		{"by an undated revocation what it names", []string{"x0", "x1"}, revoke(owner, d["x1"]), []string{"x1"}},
		{"the key in its other spelling", []string{"x0", "x early"}, revoke(owner, x0, at(0)), []string{"x early", "x0"}},
		{"those of all issuers by the owner", []string{"boss", "manager", "x0", "x of ben"}, revoke(owner, x0, at(0)), []string{"x of ben", "x0"}},
		{"those of all issuers by the host", []string{"boss", "manager", "x0", "x of ben"}, revoke(hostX, x0, at(0)), []string{"x of ben", "x0"}},
		{"not those that its signer may not revoke", []string{"boss", "manager", "x0", "x of ann", "x of ben"}, revoke(ben, d["x of ben"], at(0)), []string{"x of ben"}},
		{"those below its signer", []string{"boss", "manager", "x0", "x of ann", "x of ben"}, revoke(ann, d["x of ann"], at(0)), []string{"x of ann", "x of ben"}},
		{"not those of other hosts", []string{"boss", "manager", "y", "y of ben", "x of ben"}, revoke(owner, d["x of ben"], at(9)), []string{"x of ben"}},
		{"what rests on it", []string{"boss", "manager", "x of ann", "x of ben", "y of ben", "y"}, revoke(owner, boss, at(0)), []string{"boss", "x of ann", "x of ben", "y of ben"}},
		{"what rests on a manager", []string{"boss", "manager", "x of ann", "x of ben"}, revoke(ann, manager, at(0)), []string{"manager", "x of ben"}},
		{"not what has another path", []string{"boss", "deputy", "x of ann twice"}, revoke(owner, boss, at(0)), []string{"boss"}},
		{"what rests on a host", []string{"x0", "y of x"}, revoke(owner, x0, at(0)), []string{"x0", "y of x"}},
		{"what rests on an older one of the key", []string{"x0", "x1", "y of x"}, revoke(owner, d["x1"], at(1)), []string{"x0", "x1", "y of x"}},
		{"not what leads to nobody", []string{"x0", "y stolen"}, revoke(owner, x0, at(0)), []string{"x0"}},
		{"nothing by a stranger", []string{"x0"}, revoke(mallory, x0, at(9)), nil},
		{"nothing that let nobody in", []string{"x stolen"}, revoke(owner, d["x stolen"], at(9)), nil},
		{"nothing without its target", []string{"x1"}, revoke(owner, x0, at(9)), nil},
		{"nothing of other delegations", []string{"kv", "x0"}, revoke(owner, d["kv"], at(9)), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			facts := known([]*token.Token{toAnn, tt.revocation})
			for i, name := range tt.known {
				facts.Add(d[name], in(1, 1, i))
			}
			removals := facts.FindRemovals()
			if tt.want == nil {
				if len(removals) > 0 {
					t.Errorf("removals: %+v", removals)
				}
				return
			}
			if len(removals) != 1 || removals[0].Revocation.ID != tt.revocation.ID {
				t.Fatalf("removals: %+v", removals)
			}
			r := removals[0]
			got := named(d, func(d *token.Token) bool { return r.ends[d.ID] })
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("ends %v, want %v", got, tt.want)
			}
			for _, key := range []hostlog.Key{keyX, keyY} {
				ends := false
				for _, name := range tt.want {
					host, ok := hostlog.KeyOf(d[name].Audience)
					ends = ends || ok && host == key
				}
				if r.Ends(key) != ends || facts.Removed(key) != ends {
					t.Errorf("ends a delegation of %s: %v, some does: %v, want %v", key, r.Ends(key), facts.Removed(key), ends)
				}
			}
		})
	}
}

// docs/replication.md, "Removed hosts": an entry of the removed host survives if and only if its epoch is the cut or an
// ancestor of it, or is, or is an ancestor of, an epoch that is valid by another host's entry and does not know the removal.
//
// Branch 1 is a log of the removed host, branch 2 one of another.
func TestSurvives(t *testing.T) {
	d := hostBy(owner, hostX)
	r := revoke(owner, d)
	type protection struct {
		by   *hostlog.Key // nil: the cut
		past Clock
		at   Spot
	}
	x, y := &keyX, &keyY
	for _, tt := range []struct {
		name  string
		safe  []protection
		entry Spot
		want  bool
	}{
		{"before the cut is known", nil, Spot{1, 0}, false},
		{"in the past of the cut", []protection{{nil, Clock{1: 3}, Spot{2, 7}}}, Spot{1, 2}, true},
		{"the last in the past of the cut", []protection{{nil, Clock{1: 3}, Spot{2, 7}}}, Spot{1, 3}, true},
		{"behind the cut", []protection{{nil, Clock{1: 3}, Spot{2, 7}}}, Spot{1, 4}, false},
		{"the cut", []protection{{nil, Clock{1: 3}, Spot{1, 4}}}, Spot{1, 4}, true},
		{"in a branch that the cut does not know", []protection{{nil, Clock{1: 3}, Spot{2, 7}}}, Spot{3, 0}, false},
		{"that another built on", []protection{{y, Clock{1: 5}, Spot{2, 7}}}, Spot{1, 5}, true},
		{"behind what another built on", []protection{{y, Clock{1: 5}, Spot{2, 7}}}, Spot{1, 6}, false},
		{"of an epoch that another has too", []protection{{y, Clock{1: 5}, Spot{1, 6}}}, Spot{1, 6}, true},
		{"that it built on itself", []protection{{x, Clock{1: 5}, Spot{1, 6}}}, Spot{1, 5}, false},
		{"the furthest of all", []protection{{nil, Clock{1: 3}, Spot{2, 1}}, {y, Clock{1: 5}, Spot{2, 7}}, {y, Clock{1: 4}, Spot{2, 8}}}, Spot{1, 5}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			facts := known([]*token.Token{d, r})
			removal := facts.FindRemovals()[0]
			for _, p := range tt.safe {
				removal.Protect(p.by, p.past, []Spot{p.at})
			}
			if got := removal.Survives(keyX, []Spot{tt.entry}); got != tt.want {
				t.Errorf("survives: %v, want %v", got, tt.want)
			}
			if n, ok := removal.Prefix(keyX, tt.entry.Branch); (ok && tt.entry.N <= n) != tt.want {
				t.Errorf("survives up to %d, %v", n, ok)
			}
			here := Here{Epoch: epochOf(tt.entry), Past: Clock{1: tt.entry.N}, Spots: []Spot{tt.entry}}
			void := "its host was removed by " + r.ID.EventID()
			if tt.want {
				void = ""
			}
			_, err := facts.Host(keyX, start, here)
			verdict(t, err, void)
			verdict(t, facts.Importer(keyX, start, here.Spots), void)
			verdict(t, facts.Able(keyX, start, here), "")
			verdict(t, facts.AbleImporter(keyX, start), "")
			for _, p := range tt.safe {
				if removal.Protect(p.by, p.past, []Spot{p.at}) {
					t.Error("what was protected already is news")
				}
			}
		})
	}
	t.Run("a removed host does not survive by another's protection of itself", func(t *testing.T) {
		facts := known([]*token.Token{hostBy(owner, ann), hostBy(ann, hostX, by(hostBy(owner, ann))), hostBy(ann, hostY, by(hostBy(owner, ann))), revoke(owner, hostBy(owner, ann))})
		r := facts.FindRemovals()[0]
		r.Protect(y, Clock{1: 5, 2: 5}, nil) // an entry of y, which is removed too
		if !r.Survives(keyX, []Spot{{1, 5}}) || r.Survives(keyY, []Spot{{2, 5}}) {
			t.Error("each protects what others did, and not what itself did")
		}
	})
}

// docs/replication.md, "Removed hosts": a later host delegation lets the key in again.
func TestLetInAgain(t *testing.T) {
	first, r, again := hostBy(owner, hostX, issued(start)), (*token.Token)(nil), hostBy(owner, hostX, issued(after(2)))
	r = revoke(owner, first, issued(after(1)))
	facts := known(nil, placed{first, in(1, 0, 0)}, placed{r, in(2, 1, 0)}, placed{again, in(1, 8, 0)})
	facts.FindRemovals()
	for _, tt := range []struct {
		name string
		here Here
		void string
	}{
		{"before it", seenFrom(1, 7, 0), "its host was removed"},
		{"with it", seenFrom(1, 8, 0), ""},
		{"after it", seenFrom(1, 9, 0), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := facts.Host(keyX, start, tt.here)
			verdict(t, err, tt.void)
		})
	}
}

// docs/replication.md, "Removed hosts": the cut is the least epoch that holds the revocation and has an entry of another host
// that the removal does not end: one that is let in there.
func TestOther(t *testing.T) {
	boss := hostBy(owner, ann)
	x := hostBy(ann, hostX, by(boss))
	y, yToo := hostBy(ann, hostY, by(boss)), hostBy(owner, hostY)
	z := hostBy(owner, hostZ)
	thief := hostBy(mallory, hostY)
	for _, tt := range []struct {
		name    string
		facts   []placed
		revoked *token.Token
		host    hostlog.Key
		want    bool
	}{
		{"another", []placed{{x, in(1, 0, 0)}, {z, in(1, 1, 0)}}, x, keyZ, true},
		{"one let in by the epoch itself", []placed{{x, in(1, 0, 0)}, {z, in(1, 5, 0)}}, x, keyZ, true},
		{"one not let in yet", []placed{{x, in(1, 0, 0)}, {z, in(1, 6, 0)}}, x, keyZ, false},
		{"one let in beside it", []placed{{x, in(1, 0, 0)}, {z, in(2, 0, 0)}}, x, keyZ, false},
		{"one never let in", []placed{{x, in(1, 0, 0)}}, x, keyZ, false},
		{"one let in by a stranger", []placed{{x, in(1, 0, 0)}, {thief, in(1, 0, 1)}}, x, keyY, false},
		{"the removed host", []placed{{x, in(1, 0, 0)}, {z, in(1, 1, 0)}}, x, keyX, false},
		{"the removed host, let in again", []placed{{x, in(1, 0, 0)}, {hostBy(owner, hostX), in(1, 1, 0)}}, x, keyX, false},
		{"one that the removal ends too", []placed{{x, in(1, 0, 0)}, {y, in(1, 1, 0)}}, boss, keyY, false},
		{"one of which it ends one delegation of two", []placed{{y, in(1, 1, 0)}, {yToo, in(1, 2, 0)}}, boss, keyY, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			facts := known([]*token.Token{boss}, tt.facts...)
			facts.Add(revoke(owner, tt.revoked), in(1, 5, 0))
			r := facts.FindRemovals()[0]
			if got := facts.Other(r, tt.host, seenFrom(1, 5, 0)); got != tt.want {
				t.Errorf("can fix the cut: %v, want %v", got, tt.want)
			}
		})
	}
}

// docs/replication.md, "Removed hosts": who knows a removal has it in its past.
func TestKnowsARemoval(t *testing.T) {
	d := hostBy(owner, hostX)
	r := revoke(owner, d)
	facts := known([]*token.Token{d}, placed{r, in(1, 5, 0)}, placed{r, in(2, 3, 0)})
	removal := facts.FindRemovals()[0]
	for _, tt := range []struct {
		past Clock
		want bool
	}{{Clock{}, false}, {Clock{1: 4, 2: 2}, false}, {Clock{1: 5}, true}, {Clock{2: 3}, true}, {Clock{1: 4, 2: 4}, true}} {
		if got := removal.In(tt.past); got != tt.want {
			t.Errorf("in %v: %v, want %v", tt.past, got, tt.want)
		}
	}
	if places := removal.Places(); len(places) != 2 || places[0].Epoch != epochOf(Spot{1, 5}) {
		t.Errorf("stands at %+v", places)
	}
}

// docs/replication.md, "Judging anew": which tokens may change who is removed.
func TestConcerns(t *testing.T) {
	d, kv := hostBy(owner, hostX), grant(owner, ann, "kv/put on kv")
	facts := known([]*token.Token{d, kv})
	for _, tt := range []struct {
		name  string
		token *token.Token
		want  bool
	}{
		{"a host delegation", hostBy(owner, hostY), true},
		{"one to let hosts in", hostBy(owner, ann), true},
		{"another delegation", kv, false},
		{"a host delegation of another Space", grant(owner, hostX, "space/host on "+otherSpace.String()+"/space"), false},
		{"the revocation of a host delegation", revoke(owner, d), true},
		{"that of another", revoke(owner, kv), false},
		{"that of an unknown one", revoke(owner, hostBy(owner, hostZ)), false},
		{"an invocation", invoke(owner, "space/host on space"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := facts.Concerns(tt.token); got != tt.want {
				t.Errorf("concerns: %v, want %v", got, tt.want)
			}
		})
	}
}

// docs/protocol.md, "Host delegation": who are the hosts of a Space.
func TestHosts(t *testing.T) {
	boss := hostBy(owner, ann)
	x, y := hostBy(owner, hostX), hostBy(ann, hostY, by(boss))
	facts := known([]*token.Token{boss, x, y, hostBy(mallory, hostZ), grant(owner, hostZ, "kv/put on kv")})
	got := map[hostlog.Key]tinycloud.Hash{}
	for host, d := range facts.Hosts {
		got[host] = d.ID
	}
	if want := map[hostlog.Key]tinycloud.Hash{keyX: x.ID, keyY: y.ID}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("hosts: %v, want %v", got, want)
	}
}
