package node

import (
	"context"
	"errors"
	"log/slog"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
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

// CollectFiles deletes what services have in files beside the history that nothing needs, or that is of Spaces not among those
// given, and returns how many bytes that took.
func (d *Data) CollectFiles(ctx context.Context, spaces []tinycloud.SpaceID) (freed int64, err error) {
	for _, x := range d.n.o.Services {
		if c, ok := x.(service.Collector); ok {
			n, failed := c.Collect(ctx, d.Store, spaces)
			freed, err = freed+n, errors.Join(err, failed)
		}
	}
	return freed, err
}

// Close finishes what was begun and releases the locks.
func (d *Data) Close() error { return errors.Join(d.writer.end(), d.n.close()) }
