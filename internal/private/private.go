// Package private keeps files from other users of the machine.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

const others = 0o077 // rights of the group and of everybody

// Mended is a file or directory that others had rights to.
type Mended struct {
	Path string
	Was  fs.FileMode
	Err  error // it still is as it was; nil: others have none any more
}

func (m Mended) String() string {
	if m.Err != nil {
		return fmt.Sprintf("%s: mode %04o lets others at it, and that could not be changed: %v", m.Path, m.Was, m.Err)
	}
	return fmt.Sprintf("%s: mode %04o let others at it, it is %04o now", m.Path, m.Was, m.Was&^others)
}

// Mend takes the rights of others away from each path that exists, and returns those that had any. Where modes mean
// nothing it does nothing. Symbolic links are followed.
func Mend(paths ...string) (mended []Mended) {
	if runtime.GOOS == "windows" {
		return nil
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			mended = append(mended, Mended{Path: path, Err: err})
			continue
		}
		if mode := info.Mode().Perm(); mode&others != 0 {
			mended = append(mended, Mended{path, mode, os.Chmod(path, mode&^others)})
		}
	}
	return mended
}

// Create makes a file that only its owner may open, if it does not exist.
func Create(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
