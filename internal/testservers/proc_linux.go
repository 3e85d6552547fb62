package testservers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// tether lets the kernel kill the server when the test process dies.
func tether(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// stat returns the state and the parent of a process.
func stat(pid int) (state byte, parent int) { return statFile(fmt.Sprintf("/proc/%d/stat", pid)) }

// stopped reports whether all threads of a process stand still: they stop one after the other. One that has ended does, too; a parent
// that is stopped does not wait for it.
func stopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is right
	for _, path := range threads {
		if state, _ := statFile(path); state != 'T' && state != 'Z' && state != 'X' {
			return false
		}
	}
	return true
}

func statFile(path string) (state byte, parent int) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 'X', 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // the name before may hold anything
	if len(fields) < 2 {
		return 'X', 0
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		return 'X', 0
	}
	return fields[0][0], parent
}

// exited reports whether a child of ours has ended. It may not have been waited for.
func exited(pid int) bool {
	state, _ := stat(pid)
	return state == 'Z' || state == 'X'
}

// children returns the processes that a process started.
func children(pid int) (list []int) {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, name := range names {
		child, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if _, parent := stat(child); parent == pid {
			list = append(list, child)
		}
	}
	return list
}
