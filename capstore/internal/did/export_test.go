package did

// EncodeSecp256k1 returns the did:key of a compressed secp256k1 point of 33 bytes.
func EncodeSecp256k1(pub []byte) string { return encode(secp256k1Codec, pub) }

// EncodeP256 returns the did:key of a compressed P-256 point of 33 bytes.
func EncodeP256(pub []byte) string { return encode(p256Codec, pub) }

// Often is how many good signatures a key gets its table for.
const Often = often

// HasTable reports whether a key has a table.
func HasTable(pub []byte) bool { return tables.Contains(publicKey(pub)) }
