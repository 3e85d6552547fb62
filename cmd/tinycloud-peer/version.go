package main

import (
	"fmt"
	"runtime/debug"
)

// release is the version that is being worked on, or, built from its tag, is released.
const release = "0.1.0"

type versionCmd struct{ answer }

// Run prints the version.
func (c *versionCmd) Run(p *program) error {
	if c.JSON {
		return printJSON(p.out, map[string]string{"version": version()})
	}
	_, err := fmt.Fprintln(p.out, "tinycloud-peer", version())
	return err
}

// version is the release and, if it was built from a work tree, the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	var commit, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			commit = "+" + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = ".dirty"
		}
	}
	if commit == "" {
		return release
	}
	return release + commit + dirty
}
