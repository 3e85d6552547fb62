package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestBar(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	b := New(&out, "values", "values", 100)
	b.now, b.begun, b.shown = func() time.Time { return now }, now, now
	b.Add(10, 10<<20)
	if out.Len() > 0 {
		t.Errorf("a line at once: %q", out.String())
	}
	now = now.Add(remind)
	b.Add(15, 15<<20)
	if got, want := out.String(), "values: 25 of 100 values, 25.0 MiB, 2.5 MiB/s, 30s left\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	now = now.Add(time.Second)
	b.Add(75, 0)
	b.Done()
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], "values: 100 of 100") {
		t.Errorf("%q", lines)
	}
	var none *Bar
	none.Add(1, 1)
	none.Done()
}

func TestBarOnTerminal(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	b := New(&out, "x", "steps", 0)
	b.live, b.now, b.begun, b.shown = true, func() time.Time { return now }, now, now
	for range 3 {
		now = now.Add(redraw)
		b.Add(1, 0)
	}
	b.Done()
	if got := out.String(); strings.Count(got, "\r") != 4 || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") {
		t.Errorf("%q", got)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
