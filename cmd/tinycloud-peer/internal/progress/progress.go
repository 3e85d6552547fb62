// Package progress tells how far a long command is: one line that is written over on a terminal, a plain
// line now and then elsewhere.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	redraw = 200 * time.Millisecond // on a terminal
	remind = 10 * time.Second       // elsewhere
)

// Bar counts the steps and bytes of one task. Its methods may be called concurrently; a nil Bar shows
// nothing.
type Bar struct {
	w     io.Writer
	live  bool
	now   func() time.Time
	label string
	unit  string
	total int64 // steps; 0: not known

	mu    sync.Mutex
	begun time.Time
	shown time.Time
	steps int64
	bytes int64
	width int // of the line on the terminal
}

// New begins a task of total steps, 0 when their number is not known, each called a unit.
func New(w io.Writer, label, unit string, total int64) *Bar {
	b := &Bar{w: w, live: Terminal(w), now: time.Now, label: label, unit: unit, total: total}
	b.begun = b.now()
	b.shown = b.begun
	return b
}

// Terminal reports whether a writer is one.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// Add counts steps and bytes.
func (b *Bar) Add(steps, bytes int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.steps, b.bytes = b.steps+steps, b.bytes+bytes
	every := remind
	if b.live {
		every = redraw
	}
	if now := b.now(); now.Sub(b.shown) >= every {
		b.shown = now
		b.draw(now, false)
	}
}

// Done ends the task with a last line.
func (b *Bar) Done() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draw(b.now(), true)
}

func (b *Bar) draw(now time.Time, last bool) {
	line := b.line(now.Sub(b.begun), last)
	if !b.live {
		fmt.Fprintln(b.w, line)
		return
	}
	end := ""
	if last {
		end = "\n"
	}
	fmt.Fprintf(b.w, "\r%-*s%s", b.width, line, end)
	b.width = len(line)
}

func (b *Bar) line(took time.Duration, last bool) string {
	text := fmt.Sprintf("%s: %d", b.label, b.steps)
	if b.total > 0 {
		text += fmt.Sprintf(" of %d", b.total)
	}
	text += " " + b.unit
	seconds := max(took.Seconds(), 0.001)
	if b.bytes > 0 {
		text += fmt.Sprintf(", %s, %s/s", Bytes(b.bytes), Bytes(int64(float64(b.bytes)/seconds)))
	} else if b.steps > 0 {
		text += fmt.Sprintf(", %.0f/s", float64(b.steps)/seconds)
	}
	if !last && b.total > b.steps && b.steps > 0 {
		left := time.Duration(float64(took) * float64(b.total-b.steps) / float64(b.steps))
		text += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	return text
}

// Bytes prints a number of bytes for people.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
