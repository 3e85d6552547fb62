package locate

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

func frame(v any) []byte {
	b, err := wire.Encode(v)
	if err != nil {
		panic(err)
	}
	return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
}

// Question is the frame that asks, for any peers and nonces.
func Question(ctx context.Context, l *Locator, caller, responder peer.ID, n wire.Nonces, space tinycloud.SpaceID) ([]byte, error) {
	run := &inquiry{caller: caller, responder: responder, hs: n}
	q, err := l.question(ctx, run, run.digest(), space, secretOf(space))
	return frame(q), err
}

// Try decodes a frame of a question, and what is sealed in one. Only one spelling says that there is none.
func Try(b []byte) {
	_ = wire.Decode(b, &questionFrame{})
	_ = wire.Decode(b, &proofFrame{})
	var a answerFrame
	if err := wire.Decode(b, &a); err == nil && a == (answerFrame{}) && !bytes.Equal(append(binary.AppendUvarint(nil, uint64(len(b))), b...), NoneAnswer()) {
		panic("another spelling of none")
	}
}

// NoneAnswer is the frame that says that a node has no part in a Space.
func NoneAnswer() []byte { return frame(answerFrame{}) }

// AnswerTag decodes an answer as every version does.
func AnswerTag(frame []byte) ([32]byte, error) {
	var a answerFrame
	err := wire.Decode(frame[1:], &a)
	return a.Tag, err
}
