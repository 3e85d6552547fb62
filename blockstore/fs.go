package blockstore

import (
	"io"
	"io/fs"
	"os"
)

// FS is what the store writes through, and reads values. Directories are read from the operating system directly.
type FS interface {
	// Open opens a file for reading.
	Open(path string) (Readable, error)
	// OpenFile opens a file for reading and writing, mode 0600. With create it must not exist yet.
	OpenFile(path string, create bool) (File, error)
	// Rename replaces what is at the new path.
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(path string) error
	// Free returns how many bytes may still be written to the file system of a directory.
	Free(path string) (int64, error)
}

// File is an open file of an [FS].
type File interface {
	io.Writer
	io.WriterAt
	io.ReaderAt
	io.Closer
	Sync() error
}

// Readable is a file of an [FS] that is only read.
type Readable interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

// OS is the operating system's [FS].
type OS struct{}

// Open opens a file for reading.
func (OS) Open(path string) (Readable, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // not a non-nil Readable around a nil *os.File
	}
	return f, nil
}

// OpenFile opens a file for reading and writing.
func (OS) OpenFile(path string, create bool) (File, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err // not a non-nil File around a nil *os.File
	}
	return f, nil
}

// Rename renames a file.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove removes a file.
func (OS) Remove(path string) error { return os.Remove(path) }

// SyncDir fsyncs a directory.
func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		d.Close()
		return err
	}
	return d.Close()
}

// Free returns the bytes an unprivileged process may still write.
func (OS) Free(path string) (int64, error) { return free(path) }
