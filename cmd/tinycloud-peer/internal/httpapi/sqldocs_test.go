package httpapi_test

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSQLDocs runs what docs/sql.md shows, one after the other on one database.
func TestSQLDocs(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/sql.md")
	check(t, err)
	blocks := regexp.MustCompile("(?s)```(?:json)?\n(.*?)\n```").FindAllSubmatch(page, -1)
	if len(blocks) < 16 || len(blocks)%2 != 0 {
		t.Fatalf("%d blocks", len(blocks))
	}
	o := newDatabases(t)
	for i := 0; i < len(blocks); i += 2 {
		body, want := string(blocks[i][1]), string(blocks[i+1][1])
		status := http.StatusOK
		if _, err := fmt.Sscanf(want, "%d ", &status); err == nil {
			_, want, _ = strings.Cut(want, " ")
		}
		if got := o.ask("notes", "read write", body); got.status != status || got.body != want {
			t.Errorf("%s:\n%d %s, the page says\n%d %s", body, got.status, got.body, status, want)
		}
	}
}
