package encryption

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// Source is a node whose networks are taken over.
type Source struct {
	Seal [32]byte // under which it stores private keys
	Node string   // its DID
}

// Foreign is a network as another node stores it, with one key.
type Foreign struct {
	ID               tinycloud.NetworkID
	State            string
	N, T             int64 // threshold
	Algorithm        string
	Version          int64
	Public, Sealed   []byte
	Created, Updated time.Time
}

// Take adds a network and its key to those that are here, and reports whether that is news. The key is sealed anew. A
// network that is revoked there is revoked here. How many an owner has does not matter. The error is of class
// [tinycloud.ErrInvalid] for a key that does not open, or is of another public key.
func (n *Networks) Take(ctx context.Context, from Source, x Foreign) (added bool, err error) {
	if x.Algorithm != Algorithm || !slices.Contains([]string{stateActive, stateRotating, stateRevoked}, x.State) {
		return false, fmt.Errorf("network of algorithm %.40q in state %.40q: %w", x.Algorithm, x.State, tinycloud.ErrInvalid)
	}
	sealed, err := n.reseal(from, x)
	if err != nil {
		return false, err
	}
	err = n.rows.Update(ctx, true, func(tx capstore.BesideTx) error {
		added, err = n.add(ctx, tx, from, x, sealed)
		return err
	})
	return added, err
}

// reseal opens another node's private key, checks it, and seals it for this one.
func (n *Networks) reseal(from Source, x Foreign) ([]byte, error) {
	private := bytes.Clone(x.Sealed)
	if len(x.Sealed) != keySize { // one of that length was stored as it is
		var err error
		if private, err = open(from.Seal[:], x.Sealed); err != nil {
			return nil, fmt.Errorf("%v: %w", err, tinycloud.ErrInvalid)
		}
	}
	defer clear(private)
	pub, err := public(private)
	if err != nil || !bytes.Equal(pub, x.Public) {
		return nil, fmt.Errorf("private key of another public key: %w", tinycloud.ErrInvalid)
	}
	return box(n.o.Rand, n.o.Seal[:], private)
}

func (n *Networks) add(ctx context.Context, tx capstore.BesideTx, from Source, x Foreign, sealed []byte) (added bool, err error) {
	have, err := load(ctx, inTx{tx}, x.ID)
	if err != nil {
		return false, err
	}
	switch {
	case have == nil:
		added = true
		err = tx.Add(capstore.Insert{Into: "networks", Columns: "id network owner name state threshold_n threshold_t created updated audited"},
			row(x.ID), x.ID.String(), string(x.ID.Owner()), x.ID.Name(), x.State, x.N, x.T, x.Created.UnixNano(), x.Updated.UnixNano(), 0)
	case x.State == stateRevoked && have.state != stateRevoked:
		added = true
		err = tx.Exec("UPDATE networks SET state = ?, updated = ? WHERE id = ?", stateRevoked, tx.Now().UnixNano(), row(x.ID))
	}
	if err != nil || have != nil && slices.ContainsFunc(have.keys, func(k key) bool { return k.version == x.Version && bytes.Equal(k.public, x.Public) }) {
		return added, err
	}
	return true, tx.Add(capstore.Insert{Into: "network_keys", Columns: "network version public_key sealed created creator", Key: "network version public_key", Replace: true},
		row(x.ID), x.Version, x.Public, sealed, x.Created.UnixNano(), from.Node)
}
