package db

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// giveUp bounds how long what was sent may stay without an answer of the other side's kernel.
func giveUp(d *net.Dialer) {
	d.Control = func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds())) // not of a Unix socket
		})
	}
}
