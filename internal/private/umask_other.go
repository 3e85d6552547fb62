//go:build !unix

package private

// Umask does nothing: there are no modes.
func Umask() {}
