package node

// What is said on the local network.
var (
	SealLAN = sealLAN
	OpenLAN = openLAN
)
