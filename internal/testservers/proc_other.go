//go:build unix && !linux

package testservers

import "os/exec"

// tether needs Linux: elsewhere a server outlives a test process that is killed.
func tether(*exec.Cmd) {}

// exited needs Linux: elsewhere a server that ends at its start is noticed when the time is up.
func exited(int) bool { return false }

func stopped(int) bool { return true }

// children needs Linux: elsewhere they end when they miss their parent.
func children(int) []int { return nil }
