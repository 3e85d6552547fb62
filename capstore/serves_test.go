package capstore_test

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// Whether a Space is served follows the window of the host delegation, its removal, and a new one.
func TestServes(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		s, o := openNew(t, "one", c), newOwner(t, "alice", c)
		serves := func(what string, want error) {
			t.Helper()
			is(t, what, s.Serves(t.Context(), o.space), want)
		}
		host := func(ends time.Duration) string {
			d := captest.HostOptions(o.space, s.host(o.space).String())
			d.IssuedAt, d.Expires = c.now(), c.now().Add(ends)
			header := o.wallet.SignDelegation(d)
			s.delegate(header)
			c.ms.Add(2000) // a refusal is remembered for a second
			return header
		}
		serves("not hosted", tinycloud.ErrUnavailable)
		host(time.Hour)
		serves("hosted", nil)
		c.ms.Add(30 * time.Minute.Milliseconds())
		serves("still", nil)
		c.ms.Add(time.Hour.Milliseconds())
		serves("expired", tinycloud.ErrUnavailable)
		host(time.Hour)
		serves("renewed", nil)
		last := host(24 * time.Hour)
		serves("renewed again", nil)
		if err := s.Revoke(t.Context(), revocation(t, o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: "ucan:" + captest.ID(last).EventID(), IssuedAt: c.now(),
		}))); err != nil {
			t.Fatal(err)
		}
		serves("removed: the delegation before ends, too", tinycloud.ErrUnavailable)
		c.ms.Add(1000)
		host(time.Hour)
		serves("let in again", nil)
	})
}
