package judge

import (
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// docs/protocol.md, "Windows": a UCAN holds from nbf to exp, both included, a CACAO after nbf. docs/replication.md,
// "Events": both ends are 120 s wider for what is judged by the time of an entry.
func TestWindow(t *testing.T) {
	ucan := &token.Token{NotBefore: start, Expires: after(1000)}
	cacao := &token.Token{NotBefore: start, Expires: after(1000), OpenStart: true}
	slack := Slack.Milliseconds()
	for _, tt := range []struct {
		name  string
		token *token.Token
		at    int64
		slack time.Duration
		want  bool
	}{
		{"UCAN before nbf", ucan, -1, 0, false},
		{"UCAN at nbf", ucan, 0, 0, true},
		{"UCAN at exp", ucan, 1000, 0, true},
		{"UCAN after exp", ucan, 1001, 0, false},
		{"CACAO before nbf", cacao, -1, 0, false},
		{"CACAO at nbf", cacao, 0, 0, false},
		{"CACAO after nbf", cacao, 1, 0, true},
		{"CACAO at exp", cacao, 1000, 0, true},
		{"CACAO after exp", cacao, 1001, 0, false},
		{"UCAN more than 120 s early", ucan, -slack - 1, Slack, false},
		{"UCAN 120 s early", ucan, -slack, Slack, true},
		{"UCAN 120 s late", ucan, 1000 + slack, Slack, true},
		{"UCAN more than 120 s late", ucan, 1001 + slack, Slack, false},
		{"CACAO more than 120 s early", cacao, -slack - 1, Slack, false},
		{"CACAO 120 s early", cacao, -slack, Slack, true},
		{"CACAO 120 s late", cacao, 1000 + slack, Slack, true},
		{"CACAO more than 120 s late", cacao, 1001 + slack, Slack, false},
		{"without nbf", &token.Token{Expires: start}, -1e9, 0, true},
		{"without exp", &token.Token{NotBefore: start}, 1e9, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.token.ValidAt(after(tt.at), tt.slack); got != tt.want {
				t.Errorf("valid: %v, want %v", got, tt.want)
			}
		})
	}
}

// docs/protocol.md, "Admission of a delegation": the window of a proof contains that of the delegation that rests on it.
func TestWindowWithin(t *testing.T) {
	for _, tt := range []struct {
		name          string
		parent, child *token.Token
		ok, expiry    bool
	}{
		{"no windows", &token.Token{}, &token.Token{}, true, false},
		{"the same", &token.Token{NotBefore: start, Expires: after(9)}, &token.Token{NotBefore: start, Expires: after(9)}, true, false},
		{"inside", &token.Token{NotBefore: start, Expires: after(9)}, &token.Token{NotBefore: after(1), Expires: after(8)}, true, false},
		{"of one without", &token.Token{}, &token.Token{NotBefore: start, Expires: after(9)}, true, false},
		{"longer", &token.Token{Expires: after(9)}, &token.Token{Expires: after(10)}, false, true},
		{"without an end", &token.Token{Expires: after(9)}, &token.Token{}, false, true},
		{"earlier", &token.Token{NotBefore: start}, &token.Token{NotBefore: after(-1)}, false, false},
		{"without a begin", &token.Token{NotBefore: start}, &token.Token{}, false, false},
		{"both wrong", &token.Token{NotBefore: start, Expires: after(9)}, &token.Token{}, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if ok, expiry := WindowWithin(tt.parent, tt.child); ok != tt.ok || expiry != tt.expiry {
				t.Errorf("within: %v, the end is at fault: %v; want %v, %v", ok, expiry, tt.ok, tt.expiry)
			}
		})
	}
}
