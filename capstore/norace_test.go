//go:build !race

package capstore_test

const racing = false
