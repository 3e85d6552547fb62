package main

import (
	"runtime/debug"
	"testing"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	const commit = "0123456789abcdef0123456789abcdef01234567"
	for name, c := range map[string]struct {
		module, revision, modified string
		want                       string
	}{
		"no version control":        {"(devel)", "", "", release},
		"of tests":                  {"", "", "", release},
		"a work tree":               {"v0.0.0-20261129191553-0123456789ab", commit, "false", release + "+0123456789ab"},
		"with changes":              {"v0.0.0-20261129191553-0123456789ab+dirty", commit, "true", release + "+0123456789ab.dirty"},
		"after a tag":               {"v0.1.1-0.20261129191553-0123456789ab", commit, "false", release + "+0123456789ab"},
		"at a tag":                  {"v0.3.2", commit, "false", "0.3.2"},
		"at a tag, with changes":    {"v0.3.2+dirty", commit, "true", release + "+0123456789ab.dirty"},
		"go install of a tag":       {"v0.3.2", "", "", "0.3.2"},
		"go install of a candidate": {"v0.3.2-rc.1", "", "", "0.3.2-rc.1"},
		"go install of a commit":    {"v0.0.0-20261129191553-0123456789ab", "", "", release + "+0123456789ab"},
		"an older Go":               {"(devel)", commit, "false", release + "+0123456789ab"},
	} {
		t.Run(name, func(t *testing.T) {
			info := &debug.BuildInfo{Main: debug.Module{Version: c.module}}
			if c.revision != "" {
				info.Settings = []debug.BuildSetting{{Key: "vcs.revision", Value: c.revision}, {Key: "vcs.modified", Value: c.modified}}
			}
			if got := versionOf(info); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
