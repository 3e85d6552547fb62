package main

import (
	"fmt"
	"io"
	"time"
)

// narrator tells a story: what happened stands on lines that stay. On a terminal a last line says what is going on.
type narrator struct {
	out      io.Writer
	live     bool
	chapters int
}

func (n *narrator) chapter(title string) {
	n.clear()
	n.chapters++
	fmt.Fprintf(n.out, "\n%d  %s\n", n.chapters, title)
}

// doing says what is going on.
func (n *narrator) doing(format string, args ...any) {
	if n.live {
		n.clear()
		fmt.Fprintf(n.out, "   "+format+" …", args...)
	}
}

// say tells what happened.
func (n *narrator) say(format string, args ...any) {
	n.clear()
	fmt.Fprintf(n.out, "   "+format+"\n", args...)
}

// clear takes away what was going on.
func (n *narrator) clear() {
	if n.live {
		fmt.Fprint(n.out, "\r\x1b[K")
	}
}

// ms spells a short time.
func ms(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return d.Round(100 * time.Millisecond).String()
}
