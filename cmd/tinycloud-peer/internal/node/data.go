package node

import (
	"context"
	"errors"
	"log/slog"

	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// Data are the stores of a node that is not running: opening them takes the same locks. The caller closes
// them.
type Data struct {
	Keys   *hostkeys.Static
	Store  *capstore.Store
	Blocks *blockstore.Store
	// Networks are the encryption networks.
	Networks *encryption.Networks
	n        *Node
	writer   *layer
}

// OpenData opens the stores of the node that a configuration is of, with the services that stand beside key-value there: to
// what has others, the history is another.
func OpenData(ctx context.Context, cfg config.Config, log *slog.Logger, services ...service.HTTP) (*Data, error) {
	n := &Node{cfg: cfg, log: log, o: Options{Services: services}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	err := n.loadKeys(ctx)
	if err == nil {
		err = n.openStores(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	d := &Data{Keys: n.keys, Store: n.store, Blocks: n.blocks, Networks: n.networks, n: n}
	d.writer = begin(ctx, n.store.Run, func(error) {}) // what it fails with, Close returns
	return d, nil
}

// Close finishes what was begun and releases the locks.
func (d *Data) Close() error { return errors.Join(d.writer.end(), d.n.close()) }
