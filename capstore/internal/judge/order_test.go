package judge

import (
	"slices"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

const (
	noon = Timed + 12*3_600_000
	sec  = 1000
	day  = 24 * 3_600_000
)

// hosting is a host delegation by the owner, with an id that sorts.
func hosting(issued int64, id byte) *token.Token {
	d := grant(owner, hostX, "space/host on space")
	d.ID = tinycloud.Hash{id}
	if issued != 0 {
		d.IssuedAt = time.UnixMilli(issued)
	}
	return d
}

// window is an invocation of which only that counts.
func window(from, until int64) *token.Token {
	t := &token.Token{Kind: token.Invocation}
	if from != 0 {
		t.NotBefore = time.UnixMilli(from)
	}
	if until != 0 {
		t.Expires = time.UnixMilli(until)
	}
	return t
}

// at are entries of some times.
func at(ms ...int64) (out []Witness) {
	for _, x := range ms {
		out = append(out, Witness{At: x})
	}
	return out
}

// docs/replication.md, "Two times": T is the least of its witnesses that count, bounded by its tokens, never before its parents'.
func TestTime(t *testing.T) {
	soon := window(0, noon+60*sec)
	for _, tt := range []struct {
		name    string
		parents int64
		d       Dating
		want    int64
	}{
		{"one witness", 0, Dating{Entries: at(noon), Invocations: []*token.Token{soon}}, noon},
		{"after its parents", noon + 5, Dating{Entries: at(noon), Invocations: []*token.Token{soon}}, noon + 5},
		{"no invocation", noon - 7, Dating{Entries: at(noon)}, noon - 7},
		{"no witness", noon - 7, Dating{Invocations: []*token.Token{soon}}, noon - 7},
		{"the earliest counts", 0, Dating{Entries: at(noon, noon-9*sec, noon+9*sec), Invocations: []*token.Token{soon}}, noon - 9*sec},
		{"at most 420 s before the token ends", 0, Dating{Entries: at(noon, noon-359*sec), Invocations: []*token.Token{soon}}, noon - 359*sec},
		{"not earlier", 0, Dating{Entries: at(noon, noon-361*sec), Invocations: []*token.Token{soon}}, noon - 360*sec},
		{"nor later than all witnesses", 0, Dating{Entries: at(noon-900*sec, noon-800*sec), Invocations: []*token.Token{soon}}, noon - 800*sec},
		{"a token without an end binds nothing", 0, Dating{Entries: at(noon, noon-3600*sec), Invocations: []*token.Token{window(0, 0)}}, noon - 3600*sec},
		{"the token that ends first binds", 0, Dating{Entries: at(noon, noon-400*sec), Invocations: []*token.Token{window(0, noon+300*sec), soon}}, noon - 360*sec},
		{"at the end of the window", 0, Dating{Entries: at(noon + 180*sec), Invocations: []*token.Token{soon}}, noon + 180*sec},
		{"after it", 5 + Timed, Dating{Entries: at(noon + 180*sec + 1), Invocations: []*token.Token{soon}}, 5 + Timed},
		{"at its begin", 0, Dating{Entries: at(noon - 120*sec), Invocations: []*token.Token{window(noon, 0)}}, noon - 120*sec},
		{"before it", 0, Dating{Entries: at(noon - 120*sec - 1), Invocations: []*token.Token{window(noon, 0)}}, 0},
		{"in some window", 0, Dating{Entries: at(noon), Invocations: []*token.Token{window(noon+3600*sec, 0), soon}}, noon},
		{"imported entries if no other counts", 0, Dating{Entries: []Witness{{At: noon, Imported: true}}, Invocations: []*token.Token{soon}}, noon},
		{"not beside another", 0, Dating{Entries: []Witness{{At: noon - 9, Imported: true}, {At: noon}}, Invocations: []*token.Token{soon}}, noon},
		{"removed hosts if no other counts", 0, Dating{Entries: []Witness{{At: noon, Ended: true}}, Invocations: []*token.Token{soon}}, noon},
		{"nor theirs beside another", 0, Dating{Entries: []Witness{{At: noon - 9, Ended: true}, {At: noon}}, Invocations: []*token.Token{soon}}, noon},
		{"but before imported ones", 0, Dating{Entries: []Witness{{At: noon - 9, Imported: true}, {At: noon, Ended: true}}, Invocations: []*token.Token{soon}}, noon},
		{"the last moment without times", 0, Dating{Entries: at(Timed - 1), Invocations: []*token.Token{window(0, Timed)}}, 0},
		{"the first with", 0, Dating{Entries: at(Timed), Invocations: []*token.Token{window(0, Timed)}}, Timed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.d.Space = space
			if got := tt.d.Age([]Age{{Time: tt.parents}}).Time; got != tt.want {
				t.Errorf("T is %d ms after noon, want %d", got-noon, tt.want-noon)
			}
		})
	}
}

// docs/replication.md, "Early": what is early is the first day of a history, counted from the least host delegation in an epoch and its past.
func TestEarly(t *testing.T) {
	first, second := hosting(noon, 1), hosting(noon+9, 2)
	write := func(ms int64, parents ...Age) Age {
		return Dating{Space: space, Entries: at(ms), Invocations: []*token.Token{window(0, ms+60*sec)}}.Age(parents)
	}
	begun := func(d ...*token.Token) Age { return Dating{Space: space, Delegations: d}.Age(nil) }
	stranger := hosting(noon, 3)
	stranger.Signer = ann
	for _, tt := range []struct {
		name  string
		age   Age
		early bool
		begin byte
	}{
		{"the delegation's own epoch", begun(first), true, 1},
		{"the last moment of the first day", write(noon+day, begun(first)), true, 1},
		{"after it", write(noon+day+1, begun(first)), false, 0},
		{"after what is not early", write(noon+day+1, write(noon+day+1, begun(first))), false, 0},
		{"of two beginnings the first", write(noon+60*sec, begun(first), begun(second)), true, 1},
		{"in one epoch too", begun(second, first), true, 1},
		{"and by it the day is counted", write(noon+day+5, begun(second), begun(first)), false, 0},
		{"without a delegation", write(noon), false, 0},
		{"nor what follows it", write(noon+60*sec, write(noon), begun(first)), false, 0},
		{"a delegation of somebody else", begun(stranger), false, 0},
		{"a delegation without iat", write(noon, begun(hosting(0, 4))), false, 0},
		{"writes from before times count", write(Timed-1, begun(hosting(Timed-9, 5))), false, 0},
		{"epochs without any from then", begun(hosting(Timed-9, 5)), true, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.age.Early != tt.early || tt.age.Begin.ID != (tinycloud.Hash{tt.begin}) {
				t.Errorf("%+v, want early %v since %d", tt.age, tt.early, tt.begin)
			}
			if got := DecodeAge(tt.age.Time, tt.age.Encode()); got != tt.age {
				t.Errorf("stored and read: %+v, was %+v", got, tt.age)
			}
		})
	}
}

// docs/replication.md, "Order of operations": early epochs come first, of these the ones of later histories, then goes the time.
func TestAgeOrder(t *testing.T) {
	b := func(ms int64, id byte) Begin { return Begin{ms, tinycloud.Hash{id}} }
	want := []Age{
		{Time: 5, Early: true, Begin: b(9, 2)},
		{Time: 5, Early: true, Begin: b(9, 1)},
		{Time: 4, Early: true, Begin: b(8, 7)},
		{Time: 5, Early: true, Begin: b(8, 7)},
		{Time: 0},
		{Time: 3},
		{Time: 9},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Age.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if want[0].Compare(want[0]) != 0 {
		t.Error("an age is not equal to itself")
	}
}
