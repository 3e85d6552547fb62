package capstore

import (
	"time"
)

// HoldsValue is the query of [Store] for who holds a value.
const HoldsValue = holdsValue

// Waiting is the number of jobs that wait for the writer, those that take long apart.
func Waiting(s *Store) (jobs, bulk int) { return len(s.jobs), len(s.bulk) }

// BulkFrom is how many entries of peers are entered before others are let in between.
const BulkFrom = bulkFrom

// Patient is how many requests wait for a history.
func Patient(s *Store) int {
	s.patient.mu.Lock()
	defer s.patient.mu.Unlock()
	return s.patient.all
}

// Bounds of [Patient].
const (
	MaxPatient = maxPatient
	MaxOfSpace = maxOfSpace
)

// SetPatience sets how long requests wait for the end of joining.
func SetPatience(s *Store, d time.Duration) { s.patience = d }
