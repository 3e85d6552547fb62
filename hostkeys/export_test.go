package hostkeys

// CacheSize is in Spaces.
const CacheSize = cacheSize

// Cached is how many keys s remembers.
func Cached(s *Static) int { return s.keys.Len() }
