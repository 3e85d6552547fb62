package replication_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// queue are those that wait for a quarter of what a budget has for taking.
type queue struct {
	t      *testing.T
	budget *replication.Budget
	served []string // names in order
}

const quarter = 4 << 20

// wait begins to wait. What is got is kept until [queue.give].
func (q *queue) wait(ctx context.Context, name string) {
	go func() {
		if err := q.budget.Take(ctx, spaceNamed(q.t, name), quarter); err == nil {
			q.served = append(q.served, name)
		} else if !errors.Is(err, context.Canceled) {
			q.t.Errorf("%s: %v", name, err)
		}
	}()
	synctest.Wait()
}

func (q *queue) give(name string) {
	q.budget.Return(spaceNamed(q.t, name), quarter)
	synctest.Wait()
}

func (q *queue) want(names ...string) {
	q.t.Helper()
	if !slices.Equal(q.served, names) {
		q.t.Fatalf("served %v, want %v", q.served, names)
	}
}

func spaceNamed(t *testing.T, name string) tinycloud.SpaceID {
	t.Helper()
	id, err := tinycloud.ParseSpaceID("tinycloud:pkh:eip155:1:0x7BD63AA37326a64d458559F44432103e3d6eEDE9:" + name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A Space that asks for much has its turn like others, and not theirs.
func TestBudgetIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{t: t, budget: replication.NewBudget(0)}
		ctx, cancel := context.WithCancel(t.Context())
		for range 6 {
			q.wait(t.Context(), "busy")
		}
		q.want("busy", "busy") // the rest is for those that have nothing
		for _, name := range []string{"small", "late"} {
			q.wait(t.Context(), name)
		}
		q.want("busy", "busy", "small", "late")
		q.wait(ctx, "impatient")
		q.wait(t.Context(), "late")
		q.wait(t.Context(), "last")
		cancel()
		synctest.Wait()
		q.served = nil
		q.give("small")
		q.want("last")
		q.give("last")
		if q.want("last"); q.budget.TryTake(spaceNamed(t, "other"), 1) {
			t.Error("taken before those that wait")
		}
		q.give("late")
		q.want("last", "late")
		q.give("late")
		for range 4 {
			q.give("busy")
		}
		q.want("last", "late", "busy", "busy", "busy", "busy")
		q.give("busy")
		q.give("busy")
		if other := spaceNamed(t, "other"); !q.budget.TryTake(other, 4*quarter) {
			t.Error("not everything came back")
		}
	})
}
