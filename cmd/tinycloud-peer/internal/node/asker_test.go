package node_test

import (
	"fmt"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// A named node is asked about Spaces of all owners in turn: who signs in behind one with very many waits for few of those.
func TestAskersAreFair(t *testing.T) {
	spaces := func(owner string, n int) (out []tinycloud.SpaceID) {
		w := captest.NewWallet(owner)
		for i := range n {
			out = append(out, w.Space(fmt.Sprint("space", i)))
		}
		return out
	}
	many, few, late := spaces("many", 200), spaces("few", 5), spaces("late", 5)
	asked := 0
	order := node.AskOrder(append(many, few...), func(tinycloud.SpaceID) []tinycloud.SpaceID {
		if asked++; asked == 100 {
			return late // they come when many of the first one were asked about
		}
		return nil
	})
	if len(order) != 210 {
		t.Fatalf("%d questions", len(order))
	}
	last := map[tinycloud.Principal]int{}
	for i, space := range order {
		last[space.Owner()] = i
	}
	if got := last[few[0].Owner()]; got > 10 {
		t.Errorf("few: the last one is number %d", got)
	}
	if got := last[late[0].Owner()]; got > 106 {
		t.Errorf("late: the last one is number %d", got)
	}
}
