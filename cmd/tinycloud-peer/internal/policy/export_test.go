package policy

// For tests of the package.
var (
	ListCID    = listCID
	Names      = names
	ParseQuota = parseQuota
)

// Settle waits for the questions that are under way.
func (a *asker[A]) Settle() { a.wg.Wait() }
