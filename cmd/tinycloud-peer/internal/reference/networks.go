package reference

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
)

const oddNetwork = "encryption network that is none, left out"

// Networks calls yield with the encryption networks of the node. Versions that had none have none.
func (d *DB) Networks(ctx context.Context, odd func(Oddity), yield func(encryption.Foreign) error) error {
	if !d.networks {
		return nil
	}
	rows, err := d.query(ctx, "SELECT network_id, state, threshold_n, threshold_t, alg, key_version, public_key, sealed_private_key, created_at, updated_at FROM encryption_network ORDER BY network_id")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var x encryption.Foreign
		var id, created, updated string
		if err := rows.Scan(&id, &x.State, &x.N, &x.T, &x.Algorithm, &x.Version, &x.Public, &x.Sealed, &created, &updated); err != nil {
			return err
		}
		if x.ID, err = tinycloud.ParseNetworkID(id); err == nil {
			x.Created, err = time.Parse(time.RFC3339Nano, created)
		}
		if err == nil {
			x.Updated, err = time.Parse(time.RFC3339Nano, updated)
		}
		if err != nil {
			odd(Oddity{"", oddNetwork, id + ": " + err.Error()})
			continue
		}
		if err := yield(x); err != nil {
			return err
		}
	}
	return rows.Err()
}
