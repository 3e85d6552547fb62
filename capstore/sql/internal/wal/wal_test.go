package wal_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/wal"
)

// written makes a database with a log of several transactions, and returns how many frames it has after each.
func written(t *testing.T) (path string, c *lite.Conn, frames []int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.db")
	c, err := lite.Open(path, lite.Create, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, sql := range []string{"PRAGMA journal_mode=WAL", "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(zeroblob(20000))", "INSERT INTO t VALUES(3)"} {
		c.CountFrames()
		if err := c.Script(sql); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, c.Frames())
	}
	return path, c, frames[1:]
}

func count(t *testing.T, path string) (n int, sums []wal.Sum, salt wal.Salt) {
	t.Helper()
	salt, err := wal.Scan(path, func(i int, f wal.Frame) bool {
		if i != n || len(f.Data) != wal.PageSize {
			t.Errorf("frame %d with %d bytes", i, len(f.Data))
		}
		n++
		sums = append(sums, f.Sum)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, sums, salt
}

func TestScan(t *testing.T) {
	path, _, frames := written(t)
	log := path + "-wal"
	last := frames[len(frames)-1]
	n, sums, salt := count(t, log)
	if n != last {
		t.Fatalf("%d frames of %d", n, last)
	}
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if pages, s, sum, err := wal.Tip(f, last); err != nil || pages == 0 || s != salt || sum != sums[last-1] {
		t.Errorf("tip: %d %v %v %v", pages, s, sum, err)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for i := range last { // a frame that is damaged is the end
		bad := append([]byte{}, b...)
		bad[wal.End(i)+500] ^= 1
		if err := os.WriteFile(log+".bad", bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, _, _ := count(t, log+".bad"); n != i {
			t.Errorf("%d frames before the damaged one, not %d", n, i)
		}
	}
	for name, text := range map[string][]byte{"none": nil, "short": b[:20], "other": make([]byte, 5000)} {
		if name != "none" {
			if err := os.WriteFile(log+".bad", text, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Remove(log + ".bad"); err != nil {
			t.Fatal(err)
		}
		if n, _, _ := count(t, log+".bad"); n != 0 {
			t.Errorf("%s has %d frames", name, n)
		}
	}
}

func TestTail(t *testing.T) {
	path, _, frames := written(t)
	sums, err := wal.Tail(path+"-wal", path+"-tail", frames[1], wal.Salt{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	n, got, salt := count(t, path+"-tail")
	if n != frames[len(frames)-1]-frames[1] || len(sums) != n || salt != (wal.Salt{1, 2, 3}) || got[n-1] != sums[n-1] {
		t.Errorf("%d frames, %d sums, salt %v", n, len(sums), salt)
	}
}

// A log that is set back is one that ended there, to the connection that wrote it and to others.
func TestSetBack(t *testing.T) {
	path, c, frames := written(t)
	log, err := os.OpenFile(path+"-wal", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	index, err := os.OpenFile(path+"-shm", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = index.Close() }()
	for i := len(frames) - 2; i > 0; i-- {
		if err := wal.SetBack(log, index, frames[i]); err != nil {
			t.Fatal(err)
		}
		other, err := lite.Open(path, lite.ReadWrite, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []*lite.Conn{c, other} {
			if got, err := x.Value("SELECT count(*) FROM t"); err != nil || got != int64(i) {
				t.Errorf("%v rows after %d frames, %v", got, frames[i], err)
			}
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Script("INSERT INTO t VALUES(9)"); err != nil || c.Frames() <= frames[1] {
		t.Errorf("writing on: %v, %d frames", err, c.Frames())
	}
}
