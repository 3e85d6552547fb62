//go:build unix

package testservers

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Distant returns a URL by which a server is reached over a way that delays in each direction. What is on its way is not
// held up by what was sent before. A connection carries no more than some bytes a second each way, as services and windows bound
// one; 0 is as many as come.
func Distant(t testing.TB, server string, delay time.Duration, rate int) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	relay := exec.Command("go", "run", "github.com/TinyCloudLabs/tinycloud-peer/internal/testservers/relay", u.Host, delay.String(), fmt.Sprint(rate))
	relay.Stderr = os.Stderr
	in, err := relay.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := relay.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := relay.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()   // it ends with it
		_ = relay.Wait() // says how
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	u.Host = strings.TrimSpace(address)
	return u.String()
}
