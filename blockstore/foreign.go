package blockstore

import (
	"context"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// CommitAs makes the body the value of a Space that has another digest, and ends the stage: nodes of the reference
// stored some values under digests that are not theirs (docs/conformance.md, "Data of the reference"). Such a value
// can be opened and is told to no peer. Errors are those of [Stage.Commit].
func (st *Stage) CommitAs(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) error {
	st.hash, st.manifest.Links = hash, nil
	return st.Commit(ctx, space)
}
