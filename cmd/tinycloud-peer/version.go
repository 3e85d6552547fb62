package main

import (
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"
)

// release is the version that is being worked on, or, built from its tag, is released. CHANGELOG.md begins with it.
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

// version is that of this program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	return versionOf(info)
}

// untagged is how Go names a commit that has no version: by its time and its hash.
var untagged = regexp.MustCompile(`[.-]\d{14}-([0-9a-f]{12})(?:\+dirty)?$`)

// versionOf is the released version that was built or installed, or else the one that is being worked on, and its commit
// if that is known: "go install" knows the module's version, a build in a work tree the state of that.
func versionOf(info *debug.BuildInfo) string {
	var commit, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			commit = "+" + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = ".dirty"
		}
	}
	tag := info.Main.Version
	if found := untagged.FindStringSubmatch(tag); found != nil {
		return release + "+" + found[1] + dirty
	}
	if number, ok := strings.CutPrefix(tag, "v"); ok && dirty == "" {
		return number
	}
	if commit == "" {
		return release
	}
	return release + commit + dirty
}
