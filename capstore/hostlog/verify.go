package hostlog

import (
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/parallel"
)

// MaxAtOnce bounds the bundles that are checked, and entered into a history, together.
const MaxAtOnce = 512

// Checked are bundles of a Space whose bytes and signatures were checked.
type Checked struct {
	Space tinycloud.SpaceID
	Good  []*Parsed // the leading ones that may be entered
	Bad   error     // of the first one behind them
}

// CheckAll checks what bundles alone decide, on all cores: encodings, hashes, bounds and the entries' signatures. An
// error of class [tinycloud.ErrInvalid] or [tinycloud.ErrForged] is the sender's fault. It needs no store, so that the
// next bundles are verified while a transaction runs.
func CheckAll(id tinycloud.SpaceID, bundles []Bundle) Checked {
	if len(bundles) > MaxAtOnce {
		return Checked{Space: id, Bad: fmt.Errorf("%d bundles at once: %w", len(bundles), tinycloud.ErrTooLarge)}
	}
	good, bad := parseAll(id, bundles)
	if bad != nil && errors.Is(bad, tinycloud.ErrForged) && len(good) == len(bundles) {
		good = nil // some entry of them is forged: none is covered
	}
	return Checked{Space: id, Good: good, Bad: bad}
}

// parseAll checks bundles on all cores. It returns the leading good ones and the error of the first
// bad one.
func parseAll(space tinycloud.SpaceID, bundles []Bundle) ([]*Parsed, error) {
	out, errs := make([]*Parsed, len(bundles)), make([]error, len(bundles))
	parallel.Do(len(bundles), func(i int) { out[i], errs[i] = parse(space, &bundles[i]) })
	for i, err := range errs {
		if err != nil {
			out = out[:i]
			verifyAll(out)
			return out, err
		}
	}
	return out, verifyAll(out)
}

// signaturesPerBatch is how many bundles share the terms of their signatures: of 512 signatures each takes 14 % less than of 128, and
// a batch of a peer has two such groups.
const signaturesPerBatch = 256

// verifyAll verifies the signatures of entries and events in batches. A forged event is marked; a
// forged entry is an error.
func verifyAll(ps []*Parsed) error {
	ps = withParts(ps)
	n := (len(ps) + signaturesPerBatch - 1) / signaturesPerBatch
	bad := make([]int, n)
	parallel.Do(n, func(i int) {
		group := ps[i*signaturesPerBatch : min(len(ps), (i+1)*signaturesPerBatch)]
		bad[i] = verifyGroup(group)
	})
	for i, j := range bad {
		if j >= 0 {
			e := ps[i*signaturesPerBatch+j].Entry
			return fmt.Errorf("entry %d of %s: signature: %w", e.N, e.Host, tinycloud.ErrForged)
		}
	}
	return nil
}

// verifyGroup returns the index of the first bundle with a forged entry, or -1.
func verifyGroup(ps []*Parsed) int {
	var items []did.BatchItem
	var events []*Event
	var entries []int
	for i, p := range ps {
		if p.ImportedAt == 0 { // the entry of a part is not signed, that of the whole is
			items, entries = append(items, signatureItem(p.Entry.Host, p.Digest, &p.Sig)), append(entries, i)
		}
	}
	for _, p := range ps {
		for i := range p.DecodedEvents {
			e := &p.DecodedEvents[i]
			if e.Token == nil {
				continue
			}
			if item, ok := e.Token.BatchItem(); ok {
				items, events = append(items, item), append(events, e)
			} else if e.Token.VerifySignature() != nil {
				e.Token, e.Bad = nil, "forged"
			}
		}
	}
	good := did.VerifyEd25519Batch(items)
	for i, e := range events {
		if !good[len(entries)+i] {
			e.Token, e.Bad = nil, "forged"
		}
	}
	for k, i := range entries {
		if !good[k] {
			return i
		}
	}
	return -1
}
