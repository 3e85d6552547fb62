package capstore

import (
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// tokens are the delegations and revocations that were used last, as many as some memory holds. It is safe for
// concurrent use.
type tokens struct {
	most int // bytes

	mu   sync.Mutex // guards what follows
	used *lru.Cache[tinycloud.Hash, *Token]
	size int // bytes, about
}

// rememberedTokenBytes is what they take together.
const rememberedTokenBytes = 8 << 20

func newTokens() *tokens {
	c := &tokens{most: rememberedTokenBytes}
	c.used, _ = lru.NewWithEvict(rememberedTokens, func(_ tinycloud.Hash, t *Token) { c.size -= t.Size() })
	return c
}

// Get returns a token that is remembered.
func (c *tokens) Get(id tinycloud.Hash) (*Token, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used.Get(id)
}

// Add remembers a token, without its facts.
func (c *tokens) Add(id tinycloud.Hash, t *Token) {
	t = t.Stored()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used.Remove(id) // so that it is not counted twice
	c.size += t.Size()
	c.used.Add(id, t)
	for c.size > c.most && c.used.Len() > 1 {
		c.used.RemoveOldest()
	}
}

// Remove forgets a token.
func (c *tokens) Remove(id tinycloud.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used.Remove(id)
}

// Purge forgets all.
func (c *tokens) Purge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used.Purge()
	c.size = 0
}

// Size is about how many bytes of memory the tokens take.
func (c *tokens) Size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}
