package node_test

import (
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// States are compared within one version of the rules only.
func TestSameState(t *testing.T) {
	for _, tt := range []struct {
		a, b node.SpaceView
		want bool
	}{
		{node.SpaceView{Rules: 3, StateHash: "x"}, node.SpaceView{Rules: 3, StateHash: "x"}, true},
		{node.SpaceView{Rules: 3, StateHash: "x"}, node.SpaceView{Rules: 3, StateHash: "y"}, false},
		{node.SpaceView{Rules: 3, StateHash: "x"}, node.SpaceView{Rules: 4, StateHash: "y"}, true},
		{node.SpaceView{StateHash: "x"}, node.SpaceView{StateHash: "y"}, false},
	} {
		if got := tt.a.SameState(tt.b); got != tt.want {
			t.Errorf("%+v and %+v: %t", tt.a, tt.b, got)
		}
	}
}
