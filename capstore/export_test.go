package capstore

// ImportList is the list that [ImportHash] hashes.
func ImportList(epochs []Imported) []byte {
	var list []listed
	for _, e := range epochs {
		list = append(list, listed{at: e.At})
		copy(list[len(list)-1].epoch[:], e.Epoch)
	}
	return encodeList(list)
}

// RecodeImport decodes a list and encodes it again.
func RecodeImport(b []byte) ([]byte, error) {
	list, err := decodeList(b)
	return encodeList(list), err
}

// HoldsValue is the query of [Store] for who holds a value.
const HoldsValue = holdsValue
