package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	socketName    = "admin.sock"
	socketRecord  = "admin.path" // where the socket is when its path in the data directory would be too long
	maxSocketPath = 100          // bytes; systems allow 104 to 108 with a final NUL
)

// socket is the listener for the operator's own commands. Only the user of this process may open it.
type socket struct {
	*net.UnixListener
	path   string
	record string // file that names path, "" when it is in its usual place
}

// listenSocket makes the socket of a data directory. The database's lock keeps other processes away, so
// one that is there was left by a crash, unless it answers.
func listenSocket(datadir string) (*socket, error) {
	dir, err := filepath.Abs(datadir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &socket{path: filepath.Join(dir, socketName)}
	if err := s.clear(Socket(dir), filepath.Join(dir, socketRecord)); err != nil {
		return nil, err
	}
	home := dir
	if len(s.path)+len("/.admin-0123456789") > maxSocketPath {
		if home, err = os.MkdirTemp("", "tinycloud-peer-"); err != nil {
			return nil, err
		}
		s.path, s.record = filepath.Join(home, socketName), filepath.Join(dir, socketRecord)
	}
	if err := s.open(home); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// clear removes what a crash left behind.
func (s *socket) clear(old, record string) error {
	if c, err := net.DialTimeout("unix", old, time.Second); err == nil {
		return errors.Join(fmt.Errorf("%s: another process serves this data directory", old), c.Close())
	}
	if old != s.path {
		// What is recorded is only removed where a node makes it: alone in a directory of its own.
		if filepath.Base(old) == socketName {
			_ = os.Remove(old)
			_ = os.Remove(filepath.Dir(old))
		}
	}
	for _, name := range []string{s.path, record} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// open listens in a directory nobody else may enter and moves the socket into place once its mode is set,
// so that it is never open to others.
func (s *socket) open(home string) error {
	private, err := os.MkdirTemp(home, ".admin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(private)
	temp := filepath.Join(private, "s")
	l, err := net.Listen("unix", temp)
	if err != nil {
		return err
	}
	s.UnixListener, _ = l.(*net.UnixListener)
	s.SetUnlinkOnClose(false) // of the name it no longer has
	if err := os.Chmod(temp, 0o600); err != nil {
		return err
	}
	if err := os.Rename(temp, s.path); err != nil {
		return err
	}
	if s.record == "" {
		return nil
	}
	return os.WriteFile(s.record, []byte(s.path), 0o600)
}

// remove closes the listener and takes its files away.
func (s *socket) remove() error {
	var errs []error
	if s.UnixListener != nil {
		if err := s.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	names := []string{s.path}
	if s.record != "" {
		names = append(names, s.record, filepath.Dir(s.path))
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
