package sql

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// A difference is told for as long as the other host says it, and some hours.
func TestDifferencesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, of := New(Options{}), name{path: "db"}
		at := state{n: 1}
		s.comparing.set(of, compared{at: at, remade: true})
		theirs := service.Sum{State: stateSum(at)}
		theirs.Content[0]++
		for range 2 {
			if differs, _ := s.comparing.note(of, "host", theirs, time.Now()); !differs || s.DifferingAll() != 1 {
				t.Fatal("a difference is not told")
			}
			<-time.After(differsFor / 2)
			if differs, _ := s.comparing.note(of, "host", theirs, time.Now()); differs {
				t.Error("it is news once more")
			}
			<-time.After(differsFor)
			if s.DifferingAll() != 1 || len(s.comparing.hosts(of)) != 1 {
				t.Error("it ends too early")
			}
			<-time.After(time.Millisecond)
			if s.DifferingAll() != 0 || len(s.comparing.hosts(of)) != 0 {
				t.Error("it does not end")
			}
		}
	})
}
