//go:build !race

package replication_test

// simSeeds is how many runs of the simulation are a test.
const simSeeds = 12
