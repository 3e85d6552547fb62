package capstore_test

import (
	"errors"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// A Space that is forgotten leaves nothing to the one that gets its number.
func TestForget(t *testing.T) {
	test := func(t *testing.T) {
		c, database := newClock(), newDatabase(t)
		a := open(t, "a", c, database)
		gone, stays := newOwner(t, "alice", c), newOwner(t, "bob", c)
		for _, o := range []*owner{stays, gone} { // the last number is given again
			o.hostOn(a)
			a.delegate(o.header)
			mustPut(t, o, a, "k", o.space.String())
		}
		if err := a.Forget(t.Context(), gone.space); err != nil {
			t.Fatal(err)
		}
		a.stop()
		a = open(t, "a", c, database)
		if a.Hosted(gone.space) || !a.Hosted(stays.space) || a.get(stays.space, "k") != stays.space.String() {
			t.Error("not that one was forgotten")
		}
		if err := a.Forget(t.Context(), gone.space); !errors.Is(err, tinycloud.ErrNotFound) {
			t.Error(err)
		}
		next := newOwner(t, "carol", c)
		next.hostOn(a)
		if st := a.status(next.space); st.Keys != 0 || st.Bytes != 0 || st.Epochs != 1 {
			t.Errorf("%+v", st)
		}
		gone.hostOn(a) // it may come back, and is new then
		if st := a.status(gone.space); st.Keys != 0 {
			t.Errorf("%+v", st)
		}
		if err := a.VerifyStored(t.Context(), capstore.VerifyOptions{}, func(d capstore.Damage) { t.Errorf("%+v", d) }); err != nil {
			t.Error(err)
		}
	}
	t.Run(onSQLite, test)
	onServers(t, test)
}
