package keys

import (
	"context"
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Serve answers one question of an authorised peer.
func (k *Keeper) Serve(ctx context.Context, id peer.ID, s Stream) {
	h := k.peer(id)
	if h == nil || !h.opened.Allow() || !h.streams.TryAcquire(1) {
		_ = s.Reset()
		return
	}
	defer h.streams.Release(1)
	ctx, end := h.while(ctx)
	defer end()
	ctx, cancel := context.WithTimeout(ctx, questioned)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	f := frames{wire.NewFramer(s, maxFrame, stall, k.o.Metrics.bytes)}
	err := k.answer(ctx, f, h)
	if err == nil {
		_ = s.Close()
		return
	}
	if isOffence(err) {
		k.log.InfoContext(ctx, "question about encryption networks refused", "peer", id, "error", err)
	} else if ctx.Err() == nil {
		k.log.DebugContext(ctx, "question about encryption networks not answered", "peer", id, "error", err)
	}
	k.o.Metrics.Refused.Inc()
	_ = s.Reset()
}

func isOffence(err error) bool {
	return errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged)
}

func (k *Keeper) answer(ctx context.Context, f frames, h *host) error {
	m, err := f.get()
	switch {
	case err != nil:
		return err
	case m.Have != nil:
		return k.told(ctx, f, h, m.Have.IDs)
	case m.Ask != nil:
		given, err := k.o.Store.Give(ctx, k.o.Space, h.key, m.Ask.Data)
		if err != nil {
			k.o.Metrics.Handed.WithLabelValues("kept").Inc()
			k.log.InfoContext(ctx, "key of an encryption network not handed over", "peer", h.id, "error", err)
			return errors.Join(f.put(&message{Refused: refusal(err)}), offence(err))
		}
		if err := f.put(&message{Given: &blob{Data: given}}); err != nil {
			return err
		}
		k.o.Metrics.Handed.WithLabelValues("given").Inc()
		k.log.InfoContext(ctx, "key of an encryption network handed over", "peer", h.id)
		return nil
	case m.Decrypt != nil:
		answer, err := k.o.Store.AnswerFor(ctx, k.o.Space, hostlog.DecryptRequest{Header: m.Decrypt.Header, Network: m.Decrypt.Network, Body: m.Decrypt.Body})
		k.o.Metrics.Forwarded.WithLabelValues("answered").Inc()
		if err != nil {
			return f.put(&message{Refused: refusal(err)}) // a client's fault, if any's
		}
		return f.put(&message{Answer: &blob{Data: answer}})
	}
	return errUnexpected()
}

func offence(err error) error {
	if isOffence(err) {
		return err
	}
	return nil
}

// told answers who says what records it has.
func (k *Keeper) told(ctx context.Context, f frames, h *host, theirs []tinycloud.Hash) error {
	ours, err := k.o.Store.Have(ctx, k.o.Space)
	if err != nil {
		return err
	}
	lacks, err := k.o.Store.Records(ctx, k.o.Space, theirs)
	if err != nil {
		return err
	}
	if err := f.put(&message{Have: &have{IDs: ours}}); err != nil {
		return err
	}
	if err := f.putRecords(lacks); err != nil {
		return err
	}
	records, err := f.getRecords()
	if err != nil {
		return err
	}
	if len(records) > 0 {
		news, err := k.o.Store.Accept(ctx, k.o.Space, records)
		if err != nil {
			return errors.Join(err, f.put(&message{Refused: refusal(err)}))
		}
		k.o.Metrics.Records.Add(float64(news))
		if news > 0 {
			h.due.Give() // it may have keys for this node
		}
	}
	return f.put(&message{Done: &done{}})
}
