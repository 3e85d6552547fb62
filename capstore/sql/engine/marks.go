package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/wal"
)

// mark says which state a place in the log is.
type mark struct {
	pos    uint64         // operations taken
	digest tinycloud.Hash // of them
	frames uint32         // of the log; 0: the state is the base
	sum    wal.Sum        // of the log up to there
	schema uint32         // number of the schema
	salt   wal.Salt       // of the log
}

// markSize is the size of a mark in its file, in bytes.
const markSize = 72

var le = binary.LittleEndian

func (m *mark) append(b []byte) []byte {
	from := len(b)
	b = le.AppendUint64(b, m.pos)
	b = append(b, m.digest[:]...)
	b = le.AppendUint32(b, m.frames)
	b = le.AppendUint32(b, m.sum[0])
	b = le.AppendUint32(b, m.sum[1])
	b = le.AppendUint32(b, m.schema)
	b = append(b, m.salt[:]...)
	b = append(b, 0, 0, 0, 0)
	return le.AppendUint32(b, crc32.ChecksumIEEE(b[from:]))
}

func readMark(b []byte) (m mark, ok bool) {
	if crc32.ChecksumIEEE(b[:markSize-4]) != le.Uint32(b[markSize-4:]) {
		return m, false
	}
	return mark{
		pos: le.Uint64(b), digest: tinycloud.Hash(b[8:40]), frames: le.Uint32(b[40:]), sum: wal.Sum{le.Uint32(b[44:]), le.Uint32(b[48:])},
		schema: le.Uint32(b[52:]), salt: wal.Salt(b[56:64]),
	}, true
}

// head begins the file of marks.
type head struct {
	Undo    []segment
	Undoing bool // the last of them is being put back into the base
}

// segment are pages of the base as they were at a position before the one where it was later.
type segment struct {
	N          int // of its file
	From, To   uint64
	FromDigest tinycloud.Hash
	Pages      int
}

func (d *DB) marksPath() string { return filepath.Join(d.dir, "marks") }
func (d *DB) last() *mark       { return &d.marks[len(d.marks)-1] }
func (d *DB) frames() int       { return int(d.last().frames) }

func (d *DB) encodeMarks() ([]byte, error) {
	h, err := json.Marshal(head{d.undo, d.undoing})
	if err != nil {
		return nil, err
	}
	b := le.AppendUint32(nil, uint32(len(h)))
	b = le.AppendUint32(b, crc32.ChecksumIEEE(h))
	b = append(b, h...)
	d.headSize = int64(len(b))
	for i := range d.marks {
		b = d.marks[i].append(b)
	}
	return b, nil
}

// saveMarks writes all marks anew, durably.
func (d *DB) saveMarks() error {
	if err := d.writeMarks(d.marksPath() + ".tmp"); err != nil {
		return err
	}
	d.at("marks written")
	return d.renameMarks(d.marksPath() + ".tmp")
}

func (d *DB) writeMarks(path string) error {
	b, err := d.encodeMarks()
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return syncFile(path)
}

// renameMarks has a file of marks be the one that counts, and opens it.
func (d *DB) renameMarks(from string) (err error) {
	if err := errors.Join(os.Rename(from, d.marksPath()), syncFile(d.dir)); err != nil {
		return err
	}
	if d.marksFile != nil {
		if err := d.marksFile.Close(); err != nil {
			return err
		}
	}
	d.marksFile, err = os.OpenFile(d.marksPath(), os.O_RDWR|os.O_APPEND, 0)
	return err
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// maxMarks is how long a file of marks may be, in bytes.
const maxMarks = 64 << 20

func loadMarks(path string) (h head, marks []mark, err error) {
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxMarks {
		return h, nil, errors.Join(err, errors.New("marks cannot be read"))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return h, nil, err
	}
	if len(b) < 8 || uint64(le.Uint32(b))+8 > uint64(len(b)) {
		return h, nil, errors.New("marks end early")
	}
	n := 8 + int(le.Uint32(b))
	if crc32.ChecksumIEEE(b[8:n]) != le.Uint32(b[4:]) {
		return h, nil, errors.New("marks are damaged")
	}
	if err := json.Unmarshal(b[8:n], &h); err != nil {
		return h, nil, err
	}
	for ; n+markSize <= len(b); n += markSize {
		m, ok := readMark(b[n : n+markSize])
		if !ok {
			break
		}
		marks = append(marks, m)
	}
	if len(marks) == 0 {
		return h, nil, errors.New("there are no marks")
	}
	return h, marks, nil
}

func (d *DB) openLog() (err error) {
	if d.log == nil {
		if d.log, err = os.OpenFile(d.logPath(), os.O_RDWR, 0); err != nil {
			return err
		}
	}
	if d.index == nil {
		d.index, err = os.OpenFile(d.base()+"-shm", os.O_RDWR, 0)
	}
	return err
}

// mark sets a mark at what was just committed.
func (d *DB) mark() error {
	m := *d.last()
	m.pos, m.digest = d.pos, d.digest
	if n := d.c.Frames(); n > 0 && uint32(n) != m.frames {
		if err := d.openLog(); err != nil {
			return err
		}
		_, salt, sum, err := wal.Tip(d.log, n)
		if err != nil {
			return err
		}
		m.frames, m.salt, m.sum = uint32(n), salt, sum
		v, err := d.c.Value("PRAGMA schema_version")
		if err != nil {
			return err
		}
		n, ok := v.(int64)
		if !ok {
			return fmt.Errorf("number of the schema: %v", v)
		}
		m.schema = uint32(n)
	}
	d.marks = append(d.marks, m)
	d.at("before mark")
	_, err := d.marksFile.Write(m.append(nil))
	d.at("after mark")
	return err
}

// Mark is a state that [DB.Rewind] can go back to, at once or with the pages kept for it.
type Mark struct {
	Pos    uint64
	Digest tinycloud.Hash
}

// Marks are the states there are, by their position.
func (d *DB) Marks() []Mark {
	var all []Mark
	for _, u := range d.undo {
		all = append(all, Mark{u.From, u.FromDigest})
	}
	for _, m := range d.marks {
		all = append(all, Mark{m.pos, m.digest})
	}
	return all
}
