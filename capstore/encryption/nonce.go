package encryption

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

const (
	// maxNonces is how many requests about an owner's networks may be made within the life of a token.
	maxNonces = 256
	// nonceGrace is how long beyond its token's expiry a nonce stays remembered.
	nonceGrace = time.Minute
)

// burn remembers the nonce of a request for as long as its token could be used. A refusal has written nothing.
func burn(tx capstore.BesideTx, owner tinycloud.Principal, t *token.Token) error {
	nonce := t.Nonce
	if nonce == "" { // a text that a wallet signed
		nonce = t.ID.String()
	}
	id := tinycloud.Sum([]byte(string(t.Signer) + "\x00" + nonce))
	now := tx.Now().Unix()
	var x int64
	used, err := tx.One([]any{&x}, "SELECT 1 FROM network_nonces WHERE id = ? AND expires >= ?", id[:], now)
	if err != nil {
		return err
	}
	if used {
		return denied("nonce already used")
	}
	if _, err := tx.One([]any{&x}, "SELECT count(*) FROM network_nonces WHERE owner = ? AND expires >= ?", string(owner), now); err != nil {
		return err
	}
	if x >= maxNonces {
		return tinycloud.Refuse(tinycloud.ErrBusy, "too many requests about the owner's encryption networks")
	}
	if err := tx.Exec("DELETE FROM network_nonces WHERE owner = ? AND expires < ?", string(owner), now); err != nil {
		return err
	}
	return tx.Add(capstore.Insert{Into: "network_nonces", Columns: "id owner expires", Key: "id", Replace: true},
		id[:], string(owner), t.Expires.Add(nonceGrace).Unix())
}

// expireBatch is how many rows one transaction forgets: others wait for it.
const expireBatch = 500

// Expire forgets nonces whose tokens have ended, and decisions that are old. The node calls it now and then.
func (n *Networks) Expire(ctx context.Context) error {
	now := n.rows.Now()
	err := n.expire(ctx, "SELECT id, 0 FROM network_nonces WHERE expires < ? LIMIT ?", now.Unix(),
		func(tx capstore.BesideTx, id []byte, _ int64) error {
			return tx.Exec("DELETE FROM network_nonces WHERE id = ?", id)
		})
	if err != nil {
		return err
	}
	return n.expire(ctx, "SELECT network, slot FROM network_audit WHERE decided < ? LIMIT ?", now.Add(-auditLife).UnixMilli(),
		func(tx capstore.BesideTx, id []byte, slot int64) error {
			return tx.Exec("DELETE FROM network_audit WHERE network = ? AND slot = ?", id, slot)
		})
}

// expire forgets the rows that a query finds, by their keys.
func (n *Networks) expire(ctx context.Context, query string, before int64, forget func(tx capstore.BesideTx, id []byte, slot int64) error) error {
	type found struct {
		id   []byte
		slot int64
	}
	for {
		var rows []found
		err := n.rows.Each(ctx, func(scan func(dest ...any) error) error {
			var f found
			err := scan(&f.id, &f.slot)
			rows = append(rows, f)
			return err
		}, query, before, expireBatch)
		if err != nil || len(rows) == 0 {
			return err
		}
		err = n.rows.Update(ctx, false, func(tx capstore.BesideTx) error {
			for _, f := range rows {
				if err := forget(tx, f.id, f.slot); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}
