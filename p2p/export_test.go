package p2p

import "github.com/ipfs/go-datastore"

// Bounds that tests go to.
const (
	ProvidedNames    = providedNames
	ProvidersPerName = providersPerName
)

// NewProviders returns the store of what other nodes announce.
func NewProviders() datastore.Batching {
	return &providers{names: map[string]map[string][]byte{}}
}
