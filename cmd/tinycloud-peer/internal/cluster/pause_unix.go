//go:build unix

package cluster

import "syscall"

// Pause stops the process from doing anything until Resume: its connections stay and fall silent.
func (p *Peer) Pause() error { return p.process.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Peer) Resume() error { return p.process.cmd.Process.Signal(syscall.SIGCONT) }
