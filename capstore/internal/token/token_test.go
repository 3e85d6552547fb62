package token

import (
	"testing"
	"time"
)

// A window includes its ends, save that a CACAO is not valid yet in the very instant of its nbf; slack widens it.
func TestValidAt(t *testing.T) {
	at := time.Date(2026, 11, 23, 1, 50, 30, 0, time.UTC)
	before, after := at.Add(-1), at.Add(1)
	for _, tt := range []struct {
		name        string
		nbf, exp    *time.Time
		ucan, cacao bool
		slack       bool // with a nanosecond of it, both
	}{
		{"no bounds", nil, nil, true, true, true},
		{"ends now", nil, &at, true, true, true},
		{"ended a nanosecond ago", nil, &before, false, false, true},
		{"begins now", &at, nil, true, false, true},
		{"began a nanosecond ago", &before, &after, true, true, true},
		{"begins in a nanosecond", &after, nil, false, false, true},
		{"is this instant", &at, &at, true, false, true},
	} {
		ucan, cacao := &Token{}, &Token{OpenStart: true}
		for _, x := range []*Token{ucan, cacao} {
			x.window(tt.nbf, tt.exp)
			if got := x.ValidAt(at, time.Nanosecond); got != tt.slack {
				t.Errorf("%s: with slack, open start %v: valid %v", tt.name, x.OpenStart, got)
			}
		}
		if got := ucan.ValidAt(at, 0); got != tt.ucan {
			t.Errorf("%s: a UCAN is valid %v", tt.name, got)
		}
		if got := cacao.ValidAt(at, 0); got != tt.cacao {
			t.Errorf("%s: a CACAO is valid %v", tt.name, got)
		}
	}
}
