//go:build !linux && !darwin

package blockstore

import "math"

func free(string) (int64, error) { return math.MaxInt64, nil }
