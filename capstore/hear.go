package capstore

import (
	"context"
	"encoding/hex"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// PostgreSQL tells processes at once that another has written; elsewhere, and where a proxy keeps such news back, they look
// every [followEvery].

// hear wakes the follower when another process has written, until the context ends.
func (s *Store) hear(ctx context.Context) {
	if !s.db.Shared || s.db.Notify() == "" || s.deaf {
		return
	}
	for ctx.Err() == nil {
		err := s.db.Listen(ctx, s.others.heard.Give, func(from string) {
			if from != s.name() {
				s.others.heard.Give()
			}
		})
		if ctx.Err() == nil {
			s.log.DebugContext(ctx, "not told of what others write, looking instead", "error", err)
			wait.For(ctx, hearAgain)
		}
	}
}

// name names this process to the others.
func (s *Store) name() string { return hex.EncodeToString(s.me[:]) }
