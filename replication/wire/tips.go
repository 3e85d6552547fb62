package wire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// HashTips is what two hosts compare first: equal iff they hold the same entries.
func HashTips(tips []hostlog.Tip) tinycloud.Hash {
	tips = slices.Clone(tips)
	slices.SortFunc(tips, compareTips)
	b := make([]byte, 0, 72*len(tips))
	for _, t := range tips {
		b = append(b, t.Host[:]...)
		b = binary.BigEndian.AppendUint64(b, t.N)
		b = append(b, t.Digest[:]...)
	}
	return tinycloud.Sum(b)
}

func compareTips(a, b hostlog.Tip) int {
	return cmp.Or(bytes.Compare(a.Host[:], b.Host[:]), cmp.Compare(a.N, b.N), bytes.Compare(a.Digest[:], b.Digest[:]))
}

// PackTips and [UnpackTips] are the form of tips on the wire.
func PackTips(tips []hostlog.Tip) []Tip {
	out := make([]Tip, len(tips))
	for i, t := range tips {
		out[i] = Tip{Host: t.Host, N: t.N, Digest: t.Digest}
	}
	return out
}

// UnpackTips adds a page to the tips before it.
func UnpackTips(to []hostlog.Tip, page []Tip) ([]hostlog.Tip, error) {
	if len(to)+len(page) > MaxTips {
		return nil, fmt.Errorf("more than %d tips: %w", MaxTips, tinycloud.ErrInvalid)
	}
	for _, t := range page {
		to = append(to, hostlog.Tip{Host: t.Host, N: t.N, Digest: t.Digest})
	}
	return to, nil
}

// MostTips leaves as many tips as a host takes: of a log that somebody forked without end not all, and every other log
// that is long. What has no tip may be sent again in vain, but nothing is missed for it for ever.
func MostTips(tips []hostlog.Tip, most int) []hostlog.Tip {
	if len(tips) <= most {
		return tips
	}
	tips = slices.Clone(tips)
	slices.SortFunc(tips, func(a, b hostlog.Tip) int { return compareTips(b, a) })
	rank := make(map[hostlog.Tip]int, len(tips)) // within the log
	of := map[hostlog.Key]int{}
	for _, t := range tips {
		rank[t] = of[t.Host]
		of[t.Host]++
	}
	slices.SortStableFunc(tips, func(a, b hostlog.Tip) int { return cmp.Or(cmp.Compare(rank[a], rank[b]), cmp.Compare(b.N, a.N)) })
	return tips[:most]
}

// Pages calls f for every page of tips, at least once.
func Pages(tips []hostlog.Tip, f func(page []Tip, more bool) error) error {
	tips = MostTips(tips, MaxTips)
	for {
		n := min(len(tips), TipsPerPage)
		page := PackTips(tips[:n])
		tips = tips[n:]
		if err := f(page, len(tips) > 0); err != nil || len(tips) == 0 {
			return err
		}
	}
}
