package config_test

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

func readSeed(f *testing.F, path string) string {
	f.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return string(text)
}

func byteSizes() map[string]config.ByteSize {
	return map[string]config.ByteSize{
		"0": 0, "10": 10, "010": 10, "10B": 10, "10 b": 10,
		"1kB": 1000, "1KB": 1000, "1kb": 1000, "1KiB": 1024, "1kib": 1024, "1 MB": 1e6, "10 MiB": 10485760, "10   mIb": 10485760,
		"1.5GB": 1.5e9, "1.5 GiB": 3 << 29, "2TB": 2e12, "2TiB": 2 << 40, "3PB": 3e15, "3PiB": 3 << 50, "10EB": 1e19, "15EiB": 15 << 60,
		"0.0001kB": 0, "0.9999KiB": 1023, "1.0005kB": 1000, "18446744073709551615": math.MaxUint64,
		"0.333333333333333333333333333333333KiB": 341,
	}
}

func TestParseByteSize(t *testing.T) {
	for text, want := range byteSizes() {
		got, err := config.ParseByteSize(text)
		if err != nil || got != want {
			t.Errorf("ParseByteSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", " 1", "1 ", ".5MB", "1.", "1.MB", "1.5", "1.5B", "1.5 b", "-1", "+1", "1_000", "1k", "1K", "1Ki", "1M", "1 iB", "1kmB", "1ZB", "MB", "1 MB ",
		"1MB1", "1\tMB", "1\u00a0MB", "1.5.5MB", "1,5MB", "0x10", "1e3", "16EiB", "18446744073709551616", "18.5EB", strings.Repeat("1", 200), "٣MB",
	} {
		if got, err := config.ParseByteSize(text); err == nil {
			t.Errorf("ParseByteSize(%q) = %d", text, got)
		}
	}
}

func TestByteSizePrints(t *testing.T) {
	for size, want := range map[config.ByteSize]string{0: "0", 1: "1", 1000: "1000", 1024: "1 KiB", 10 << 20: "10 MiB", 3 << 29: "1536 MiB", 8 << 60: "8 EiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d prints as %q, want %q", uint64(size), got, want)
		}
	}
	if got := config.ByteSize(math.MaxUint64).Int64(); got != math.MaxInt64 {
		t.Errorf("Int64() = %d", got)
	}
	if got := config.ByteSize(5).Int64(); got != 5 {
		t.Errorf("Int64() = %d", got)
	}
}

func FuzzParseByteSize(f *testing.F) {
	for text := range byteSizes() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := config.ParseByteSize(text)
		if err != nil {
			return
		}
		if text[0] < '0' || text[0] > '9' || strings.TrimSpace(text) != text || strings.ContainsAny(text, "+-_") {
			t.Errorf("accepts %q", text)
		}
		if again, err := config.ParseByteSize(size.String()); err != nil || again != size {
			t.Errorf("%q is %d, prints as %q, reads as %d, %v", text, uint64(size), size, uint64(again), err)
		}
	})
}
