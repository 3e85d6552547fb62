package tinycloud

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/sha3"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/recent"
)

// Principal is a DID without fragment in canonical spelling: a did:pkh:eip155 account has its EIP-55
// checksum. Two principals are the same party iff they are equal.
type Principal string

// ParsePrincipal reads a DID or DID URL and drops what follows the DID (docs/protocol.md, "DIDs and principals").
func ParsePrincipal(text string) (Principal, error) { return principals.Of(text, readPrincipal) }

// principals are DIDs that were read lately.
var principals = recent.New[Principal]()

func readPrincipal(text string) (Principal, error) {
	did := text
	if i := strings.IndexAny(did, "/?#"); i >= 0 {
		did = did[:i]
	}
	if !IsURI(text) || !isDID(did) {
		return "", fmt.Errorf("DID %q: %w", clip(text), ErrInvalid)
	}
	return canonicalDID(did)
}

// EIP155 returns the chain id and 20-byte account of a did:pkh:eip155 principal.
func (p Principal) EIP155() (chain uint64, account [20]byte, ok bool) {
	parts := strings.Split(string(p), ":")
	if len(parts) != 5 || parts[1] != "pkh" || parts[2] != "eip155" {
		return 0, account, false
	}
	chain, err := strconv.ParseUint(parts[3], 10, 64)
	if err != nil || !parseAccount(parts[4], &account) {
		return 0, account, false
	}
	return chain, account, true
}

func isDID(s string) bool {
	rest, ok := strings.CutPrefix(s, "did:")
	if !ok || len(s) > 512 {
		return false
	}
	method, id, ok := strings.Cut(rest, ":")
	if !ok || method == "" || id == "" || id[len(id)-1] == ':' {
		return false
	}
	for i := range len(method) {
		if c := method[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return spelled(id, inDID)
}

// canonicalDID gives did:pkh:eip155 accounts one spelling and leaves other DIDs alone.
func canonicalDID(did string) (Principal, error) {
	rest, ok := strings.CutPrefix(did, "did:pkh:eip155:")
	if !ok {
		return Principal(did), nil
	}
	chainText, address, _ := strings.Cut(rest, ":")
	chain, err := strconv.ParseUint(strings.TrimPrefix(chainText, "+"), 10, 64)
	var account [20]byte
	if err != nil || chain == 0 || !parseAccount(address, &account) {
		return "", fmt.Errorf("DID %q: chain or address: %w", clip(did), ErrInvalid)
	}
	return Principal(fmt.Sprintf("did:pkh:eip155:%d:%s", chain, ChecksumAddress(account))), nil
}

func parseAccount(text string, out *[20]byte) bool {
	digits, ok := strings.CutPrefix(text, "0x")
	if !ok || len(digits) != 40 {
		return false
	}
	_, err := hex.Decode(out[:], []byte(digits))
	return err == nil
}

// ChecksumAddress prints an Ethereum account with its EIP-55 checksum.
func ChecksumAddress(account [20]byte) string {
	text := []byte(hex.EncodeToString(account[:]))
	h := sha3.NewLegacyKeccak256()
	h.Write(text)
	sum := h.Sum(nil)
	for i, c := range text {
		nibble := sum[i/2] >> (4 * (1 - i%2)) & 0xf
		if c >= 'a' && nibble >= 8 {
			text[i] = c - 'a' + 'A'
		}
	}
	return "0x" + string(text)
}

func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
