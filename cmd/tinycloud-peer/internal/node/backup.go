package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

const (
	collectEvery = time.Hour
	forgetEvery  = 5 * time.Minute // looks for delegations that waited long enough
	collectAge   = time.Hour       // of a value whose row may still come
)

// collect frees past values now and then, forgets delegations of Spaces that did not come to be hosted, and the files of those
// whose rows are gone. A bucket is left to the verb gc, for other processes may put values there.
func (n *Node) collect(ctx context.Context) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	forget := time.NewTicker(forgetEvery)
	defer forget.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-forget.C:
			if err := n.store.ForgetUnhosted(ctx); err != nil && ctx.Err() == nil {
				n.log.WarnContext(ctx, "delegations of spaces that are not hosted here not forgotten, trying again", "error", err)
			}
		case <-tick.C:
			err := n.store.Expire(ctx)
			if n.cfg.Storage.Blocks.Type != config.BlocksS3 {
				err = errors.Join(err, n.collectOnce(ctx, time.Now().Add(-collectAge)))
			}
			if err != nil && ctx.Err() == nil {
				n.log.WarnContext(ctx, "values nobody needs not freed, trying again", "error", err)
			}
		}
	}
}

func (n *Node) collectOnce(ctx context.Context, before time.Time) error {
	n.files.Lock()
	defer n.files.Unlock()
	for _, space := range n.store.Spaces() {
		freed, err := n.blocks.Collect(ctx, space, before, func(h tinycloud.Hash) (bool, error) { return n.store.Held(ctx, space, h) })
		if err != nil {
			return err
		}
		if freed.Values > 0 {
			n.log.InfoContext(ctx, "freed values", "space", space, "values", freed.Values, "bytes", freed.Bytes)
		}
	}
	return nil
}

// BackupRequest is the body of POST /admin/backup, which only the socket in the data directory answers.
type BackupRequest struct {
	Dir string `json:"dir"` // absolute, must not be there
}

// Backup is what was written: a data directory of its own.
type Backup struct {
	Dir    string `json:"dir"`
	Values int64  `json:"values"` // files of values
	Linked int64  `json:"linked"` // of them, hard links that take no room
	Bytes  int64  `json:"bytes"`
	Secret bool   `json:"secret"` // the secret is in it
}

func (n *Node) adminBackup(r *http.Request) (int, any, error) {
	var q BackupRequest
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return 0, nil, fmt.Errorf("body: %v: %w", err, tinycloud.ErrInvalid)
	}
	b, err := n.backup(r.Context(), q.Dir)
	if err == nil && !n.ours(q.Dir) {
		n.noteBackup(r.Context())
	}
	return http.StatusOK, b, err
}

// backupName is a file of the data directory whose time is that of the last backup.
const backupName = "backed-up"

// Copies is how the names of directories begin, in the data directory, that verbs have a running node copy itself to.
const Copies = ".copy-"

// removeCopies deletes what verbs left that were killed.
func removeCopies(datadir string) (err error) {
	all, err := os.ReadDir(datadir)
	for _, e := range all {
		if strings.HasPrefix(e.Name(), Copies) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(datadir, e.Name())))
		}
	}
	return err
}

// ours reports whether a path is within the data directory: a copy there, which verbs read of a node that runs, is no backup.
func (n *Node) ours(path string) bool {
	root, err := filepath.Abs(n.cfg.Storage.Datadir)
	if err != nil {
		return false
	}
	inside, err := filepath.Rel(root, path)
	return err == nil && filepath.IsLocal(inside)
}

// noteBackup remembers that there is a backup. Whether that works is of no importance to the backup.
func (n *Node) noteBackup(ctx context.Context) {
	n.log.InfoContext(ctx, "backed up")
	name := filepath.Join(n.cfg.Storage.Datadir, backupName)
	if err := os.WriteFile(name, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		n.log.WarnContext(ctx, "it is not remembered that there is a backup", "error", err)
	}
}

// lastBackup is when the verb backup last ended well, zero when that is not known.
func (n *Node) lastBackup() time.Time {
	if n.cfg.Storage.Datadir == "" {
		return time.Time{}
	}
	info, err := os.Stat(filepath.Join(n.cfg.Storage.Datadir, backupName))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// backup copies the database as it is at one moment, then the values it names: their files never change,
// and none is freed meanwhile. The directory appears when all of it is durable.
func (n *Node) backup(ctx context.Context, dir string) (b Backup, err error) {
	if !filepath.IsAbs(dir) {
		return b, fmt.Errorf("dir %q is not absolute: %w", dir, tinycloud.ErrInvalid)
	}
	if !n.cfg.Storage.OnFiles() {
		return b, fmt.Errorf("only a SQLite database with its values on local disk can be backed up so: %w", tinycloud.ErrInvalid)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return b, fmt.Errorf("%s is there already: %w", dir, tinycloud.ErrInvalid)
	}
	temp := dir + ".partial"
	if err := os.RemoveAll(temp); err != nil {
		return b, err
	}
	if err := os.Mkdir(temp, 0o700); err != nil {
		return b, fmt.Errorf("%v: %w", err, tinycloud.ErrInvalid)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	n.files.Lock()
	defer n.files.Unlock()
	if err := n.store.Snapshot(ctx, filepath.Join(temp, "caps.db")); err != nil {
		return b, err
	}
	b.Dir = dir
	if err := b.secret(n.cfg.SecretFile(), temp); err != nil {
		return b, err
	}
	if err := b.values(ctx, n.cfg.Storage.Blocks.Path, filepath.Join(temp, "blocks")); err != nil {
		return b, err
	}
	if err := errors.Join(syncPath(filepath.Join(temp, "caps.db")), syncPath(temp)); err != nil {
		return b, err
	}
	if err := os.Rename(temp, dir); err != nil {
		return b, err
	}
	return b, syncPath(filepath.Dir(dir))
}

func (b *Backup) secret(from, dir string) error {
	if from == "" {
		return nil
	}
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil // it is in the configuration
	}
	b.Secret = true
	_, err := copyFile(from, filepath.Join(dir, "secret"))
	return err
}

// values copies the files of values, by hard links where that is possible. What begins with a dot is no
// value: it is made again.
func (b *Backup) values(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted since it was listed, and so not in the copy of the database
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case e.IsDir() && rel != "." && strings.HasPrefix(e.Name(), "."):
			return fs.SkipDir
		case e.IsDir():
			return os.Mkdir(target, 0o700)
		case !e.Type().IsRegular():
			return nil
		}
		return b.value(path, target)
	})
}

func (b *Backup) value(path, target string) error {
	err := os.Link(path, target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var size int64
	if err == nil {
		b.Linked++
		info, err := os.Stat(target)
		if err != nil {
			return err
		}
		size = info.Size()
	} else if size, err = copyFile(path, target); err != nil {
		return err
	}
	b.Values, b.Bytes = b.Values+1, b.Bytes+size
	return nil
}

// copyFile copies a file and makes it durable.
func copyFile(from, to string) (int64, error) {
	r, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(w, r)
	return n, errors.Join(err, w.Sync(), w.Close())
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
