//go:build race

package capstore_test

// racing says that the race detector is on, under which everything takes many times as long. What then differs
// is how much of a random search is done and on how many servers, not what is tested.
const racing = true
