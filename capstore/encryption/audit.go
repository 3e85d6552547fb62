package encryption

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// What is remembered of decisions: of each network the last so many, for so long.
const (
	maxAudit  = 1000
	auditLife = 90 * 24 * time.Hour
)

// Outcomes of a request to decrypt.
const (
	outcomeAllowed = "allowed"
	outcomeTarget  = "denied:target-node"
	outcomeState   = "denied:state"
	outcomeRevoked = "denied:revoked"
	outcomeSender  = "denied:receiver-hash"
	outcomeKey     = "denied:key-hash"
	outcomeBody    = "denied:body-hash"
)

// asked is a request that is decided on.
type asked struct {
	network   tinycloud.NetworkID
	requester tinycloud.Principal
	hash      [sha256.Size]byte
}

// audit remembers the first decision on a request. There is none of networks that are not here, so that rows are of
// owners who are hosted.
func (n *Networks) audit(ctx context.Context, a asked, outcome string) error {
	id := row(a.network)
	var x int64
	switch there, err := n.rows.One(ctx, []any{&x}, "SELECT 1 FROM networks WHERE id = ?", id); {
	case err != nil:
		return fmt.Errorf("audit: %w", err)
	case !there:
		return nil
	}
	switch decided, err := n.rows.One(ctx, []any{&x}, auditOf, id, a.hash[:]); {
	case err != nil:
		return fmt.Errorf("audit: %w", err)
	case decided:
		return nil
	}
	return n.rows.Update(ctx, false, func(tx capstore.BesideTx) error {
		var slot int64
		if decided, err := tx.One([]any{&slot}, auditOf, id, a.hash[:]); err != nil || decided {
			return err
		}
		if err := tx.Exec("UPDATE networks SET audited = audited + 1 WHERE id = ?", id); err != nil {
			return err
		}
		if _, err := tx.One([]any{&slot}, "SELECT audited FROM networks WHERE id = ?", id); err != nil {
			return err
		}
		return tx.Add(capstore.Insert{Into: "network_audit", Columns: "network slot request requester outcome decided", Key: "network slot", Replace: true},
			id, slot%maxAudit, a.hash[:], string(a.requester), outcome, tx.Now().UnixMilli())
	})
}

const auditOf = "SELECT slot FROM network_audit WHERE network = ? AND request = ?"
