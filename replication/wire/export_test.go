package wire

// For tests.
var (
	AppendBatch = appendBatch
	BatchOf     = batchOf
)
