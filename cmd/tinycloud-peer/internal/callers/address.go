package callers

import (
	"net"
	"net/netip"
)

// Address is what a client is counted by: its address, of IPv6 the /64, which is what one client has. All whose address
// is not known share the zero one.
func Address(remote string) netip.Addr {
	addr := parse(remote)
	if addr.Is6() {
		prefix, _ := addr.Prefix(64) // shorter than the address
		addr = prefix.Addr()
	}
	return addr
}

// Stranger is the [Address] of a client elsewhere, zero for this machine.
func Stranger(remote string) netip.Addr {
	if parse(remote).IsLoopback() {
		return netip.Addr{}
	}
	return Address(remote)
}

// parse reads an address with or without a port; the zero one is of what is neither.
func parse(remote string) netip.Addr {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// site is the /48 of an IPv6 address, which is what one line or rented machine may have; zero of any other.
func site(addr netip.Addr) netip.Addr {
	if !addr.Is6() {
		return netip.Addr{}
	}
	prefix, _ := addr.Prefix(48) // shorter than the address
	return prefix.Addr()
}
