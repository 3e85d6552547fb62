//go:build linux

package blockstore_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
)

// These tests need a process of their own: to be killed, to be refused by the kernel, or to die if they
// fail. The test binary runs itself with roleVar set; TestMain hands over to child.
const roleVar, dirVar = "BLOCKSTORE_TEST_ROLE", "BLOCKSTORE_TEST_DIR"

func process(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProcess$", "-test.v")
	cmd.Env = append(os.Environ(), roleVar+"="+role, dirVar+"="+dir)
	return cmd
}

// TestProcess is the other process; run as a test it has nothing to do.
func TestProcess(t *testing.T) {
	dir := os.Getenv(dirVar)
	switch os.Getenv(roleVar) {
	case "writer":
		writeForEver(t, dir)
	case "file size limit":
		exceedFileSize(t, dir)
	case "full disk":
		fillDisk(t, dir)
	}
}

// writeForEver prints the seed and size of each value that was acknowledged.
func writeForEver(t *testing.T, dir string) {
	s := open(t, blockstore.Options{Dir: dir, Staging: blockstore.FileSystem, InlineLimit: -1})
	for seed := byte(0); ; seed++ {
		size := []int{0, 100, 100_000, blockstore.ChunkSize + 1000}[seed%4] + int(seed)
		if err := store(t.Context(), s, blockstoretest.Space(t, "default"), blockstoretest.Body(seed, size)); err != nil {
			t.Fatal(err)
		}
		fmt.Println("stored", seed, size)
	}
}

// TestKill kills a writer and checks that what it acknowledged is there and that nothing else is half.
func TestKill(t *testing.T) {
	space := blockstoretest.Space(t, "default")
	for _, after := range []int{1, 2, 3, 17, 40} {
		dir := t.TempDir()
		cmd := process(t, "writer", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var stored [][]byte
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var seed, size int
			if _, err := fmt.Sscanf(lines.Text(), "stored %d %d", &seed, &size); err != nil {
				continue
			}
			stored = append(stored, blockstoretest.Body(byte(seed), size))
			if len(stored) == after {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		if len(stored) < after {
			t.Fatalf("the writer stored %d values", len(stored))
		}
		s := open(t, blockstore.Options{Dir: dir})
		if err := s.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, body := range stored {
			if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil {
				t.Errorf("acknowledged value: %v", err)
			}
			if len(body) > blockstore.ChunkSize {
				wantChunks(t.Context(), t, s, space, body)
			}
		}
		err = s.Walk(t.Context(), space, func(h tinycloud.Hash, _ int64) error { return s.Verify(t.Context(), space, h) })
		if err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, ".staging", "*")); err != nil || len(left) > 0 {
			t.Errorf("%q left, %v", left, err)
		}
	}
}

// TestDiskFull lets the kernel refuse: by a limit on the size of files, which needs no privilege, and, for
// who may mount, by small file systems.
func TestDiskFull(t *testing.T) {
	run := func(role, dir string) {
		out, err := process(t, role, dir).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "done: "+role) {
			t.Errorf("%s: %v\n%s", role, err, out)
		}
	}
	run("file size limit", t.TempDir())
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"); err != nil {
		t.Logf("no file system to fill: %v", err)
		return
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	run("full disk", filepath.Join(dir, "blocks"))
}

func wantFull(t *testing.T, err, cause error) {
	t.Helper()
	if !errors.Is(err, tinycloud.ErrUnavailable) || !errors.Is(err, cause) || !strings.Contains(err.Error(), "storage.blocks.path") {
		t.Fatalf("error %v, want class %v for %v", err, tinycloud.ErrUnavailable, cause)
	}
}

func exceedFileSize(t *testing.T, dir string) {
	space := blockstoretest.Space(t, "default")
	for _, staging := range []blockstore.Staging{blockstore.Memory, blockstore.FileSystem} {
		dir := filepath.Join(dir, string(staging))
		s := open(t, blockstore.Options{Dir: dir, Staging: staging})
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 500_000, Max: syscall.RLIM_INFINITY & (1<<63 - 1)}); err != nil {
			t.Fatal(err)
		}
		wantFull(t, store(t.Context(), s, space, blockstoretest.Body(1, 500_001)), syscall.EFBIG)
		for _, f := range leftovers(t, dir) {
			t.Errorf("%q left", f)
		}
		if err := store(t.Context(), s, space, blockstoretest.Body(2, 500_000)); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), space, tinycloud.Sum(blockstoretest.Body(2, 500_000))); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 62, Max: syscall.RLIM_INFINITY & (1<<63 - 1)}); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("done: file size limit")
}

// fillDisk fills a disk that also has the index, first with large values, then with others. The process
// must survive it, read what it stored, and go on when there is room.
func fillDisk(t *testing.T, dir string) {
	space := blockstoretest.Space(t, "default")
	s, err := blockstore.Open(t.Context(), blockstore.Options{Dir: dir, Staging: blockstore.FileSystem})
	if err != nil {
		t.Fatal(err)
	}
	var stored [][]byte
	for _, size := range []int{blockstore.ChunkSize + 100_000, 900_000, 70_000} {
		for seed := byte(0); ; seed++ {
			body := blockstoretest.Body(seed, size+int(seed))
			err := store(t.Context(), s, space, body)
			if err == nil {
				stored = append(stored, body)
				continue
			}
			wantFull(t, err, syscall.ENOSPC)
			break
		}
	}
	if len(stored) < 20 {
		t.Fatalf("only %d values stored", len(stored))
	}
	if files, err := filepath.Glob(filepath.Join(dir, ".staging", "*")); err != nil || len(files) > 0 {
		t.Fatalf("%q left, %v", files, err)
	}
	u, err := s.Usage(t.Context(), space)
	if err != nil || u.Values != len(stored) {
		t.Fatalf("%d values stored, %+v there: %v", len(stored), u, err)
	}
	for _, body := range stored {
		if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil {
			t.Fatal(err)
		}
	}
	wantFull(t, s.Close(), syscall.ENOSPC)
	if _, err := blockstore.Open(t.Context(), blockstore.Options{Dir: dir}); err == nil {
		t.Fatal("opened on a full disk")
	}
	fmt.Println("done: full disk with", strconv.Itoa(len(stored)), "values")
	fmt.Println("done: full disk")
	os.Exit(0) // the index could not be closed
}
