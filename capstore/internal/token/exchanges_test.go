package token_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// TestExchanges holds that tokens recorded from the running reference are valid when they were for it.
func TestExchanges(t *testing.T) {
	b, err := os.ReadFile("../../../internal/cacao/testdata/exchanges.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []struct{ Name, Token, Want string }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 30 {
		t.Fatalf("only %d exchanges", len(all))
	}
	recordedAt := time.Date(2026, 11, 23, 1, 50, 30, 0, time.UTC)
	for _, e := range all {
		if e.Want == "undecodable" {
			continue
		}
		tok, err := token.FromHeader(e.Token)
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
		} else if got := tok.ValidAt(recordedAt, 0); got != (e.Want != "window") {
			t.Errorf("%s: valid %v, want %s", e.Name, got, e.Want)
		}
	}
}
