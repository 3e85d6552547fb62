package replication_test

import (
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// catchUp has a host make durable what a window lets pass, one batch after another, at a number of bytes a second. It
// returns how long that takes, and the most that is under way.
func catchUp(w replication.Window, way time.Duration, speed float64, bytes int) (took time.Duration, most int) {
	start := time.Unix(0, 0)
	now, free := start, start
	var acks []time.Time
	for sent := 0; sent < bytes || len(acks) > 0; {
		if size := replication.BatchAfter(sent); sent < bytes && w.Add(size, now) {
			sent, most = sent+size, max(most, w.Bytes())
			if arrives := now.Add(way / 2); free.Before(arrives) {
				free = arrives
			}
			free = free.Add(time.Duration(float64(size) / speed * float64(time.Second)))
			acks = append(acks, free.Add(way/2))
			continue
		}
		now, acks = acks[0], acks[1:]
		w.Ack(now)
	}
	return now.Sub(start), most
}

func TestWindow(t *testing.T) {
	const mega, full = 1 << 20, 8 << 20
	const near, far, farther = 0, 100 * time.Millisecond, 300 * time.Millisecond
	for _, c := range []struct {
		name     string
		way      time.Duration
		supposed time.Duration // what it seems to be before the first acknowledgement
		speed    float64       // bytes a second
		more     time.Duration // than from near
		most     int           // bytes under way
	}{
		{"near", near, near, 10 * mega, 0, 3 * mega},
		{"far", far, far, 10 * mega, far + far/10, 6 * mega},
		{"farther", farther, farther + far/10, 10 * mega, farther + far/10, full},
		{"far and quick", far, far, 40 * mega, 2 * far, full},
		{"far and slow", far, far, mega / 2, far + far/10, 7 * mega / 2},
		{"near, and seemed far", near, time.Minute, 10 * mega, 0, 7 * mega},
	} {
		t.Run(c.name, func(t *testing.T) {
			const bytes = 32 * mega
			least, _ := catchUp(replication.NewWindow(near), near, c.speed, bytes)
			took, most := catchUp(replication.NewWindow(c.supposed), c.way, c.speed, bytes)
			if took > least+c.more {
				t.Errorf("took %s more than from near, want %s", took-least, c.more)
			}
			if most > c.most {
				t.Errorf("%d bytes under way, want %d", most, c.most)
			}
		})
	}
}

// TestLongWindow lets more go once what may be lost of it is little.
func TestLongWindow(t *testing.T) {
	const mega = 1 << 20
	if _, most := catchUp(replication.NewWindow(0), 0, 10*mega, 64*mega); most != 8*mega {
		t.Errorf("%d bytes under way, want 8 MiB", most)
	}
}
