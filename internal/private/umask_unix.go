//go:build unix

package private

import "golang.org/x/sys/unix"

// Umask gives others no rights to files that this process makes from now on, whatever makes them.
func Umask() { unix.Umask(others) }
