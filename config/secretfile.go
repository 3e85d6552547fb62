package config

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/private"
)

// maxSecretFile bounds what is read as a secret.
const maxSecretFile = 64 << 10

// ErrMissingSecret means that there is neither a secret nor a place to keep a generated one.
var ErrMissingSecret = errors.New("missing secret: set keys.secret (TINYCLOUD_KEYS_SECRET), or storage.datadir to have one generated there")

// ResolveSecret returns the configured secret or else the one of [Config.SecretFile], which it creates when there is
// none. Without datadir it is [ErrMissingSecret].
func (c Config) ResolveSecret() (Secret, []Warning, error) {
	if !c.Keys.Secret.IsZero() {
		return c.Keys.Secret, nil, nil
	}
	path := c.SecretFile()
	if path == "" {
		return Secret{}, nil, ErrMissingSecret
	}
	secret, created, err := LoadOrCreateSecret(path)
	if err != nil {
		return Secret{}, nil, err
	}
	var warnings []Warning
	if created {
		warnings = append(warnings, Warning{
			Setting: "keys.secret", Source: path,
			Message: "new secret generated: back it up, without it this node is no host of its Spaces any more",
		})
	}
	for _, m := range private.Mend(path) {
		warnings = append(warnings, Warning{Setting: "keys.secret", Source: path, Message: m.String()})
	}
	return secret, warnings, nil
}

// SecretMissing reports whether [Config.ResolveSecret] would make a secret.
func (c Config) SecretMissing() (bool, error) {
	path := c.SecretFile()
	if !c.Keys.Secret.IsZero() || path == "" {
		return false, nil
	}
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// ErrOtherSecret means that a node has a secret, and it is another one.
var ErrOtherSecret = errors.New("this node has another secret")

// AdoptSecret makes a secret that of the node: it is the configured one already, or [Config.SecretFile] holds it, or
// it is written there. The error is [ErrOtherSecret] when the node has another.
func (c Config) AdoptSecret(s Secret) error {
	have, path := c.Keys.Secret, c.SecretFile()
	switch {
	case !have.IsZero():
	case path == "":
		return ErrMissingSecret
	default:
		var err error
		if have, err = readSecret(path); errors.Is(err, fs.ErrNotExist) {
			return createSecret(path, s.b)
		} else if err != nil {
			return err
		}
	}
	if !have.Equal(s) {
		return ErrOtherSecret
	}
	return nil
}

// LoadOrCreateSecret reads the secret at path, in the form of keys.secret. When there is no file it makes one of 32
// random bytes, mode 0600, which is whole and durable before it returns and never replaces another. A short or
// malformed file is an error and stays as it is.
func LoadOrCreateSecret(path string) (secret Secret, created bool, err error) {
	secret, err = readSecret(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, false, err
	}
	seed := make([]byte, MinSecretBytes)
	_, _ = rand.Read(seed) // never fails
	err = createSecret(path, seed)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return Secret{}, false, fmt.Errorf("secret file: %w", err)
	}
	created = err == nil
	// What the file says is what the next start will see, also when another process was first.
	secret, err = readSecret(path)
	return secret, created, err
}

func readSecret(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, fmt.Errorf("secret file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return Secret{}, fmt.Errorf("secret file: %w", err)
	}
	if len(text) > maxSecretFile {
		return Secret{}, fmt.Errorf("secret file %s: more than %d bytes", path, maxSecretFile)
	}
	secret, err := ParseSecret(strings.TrimRight(string(text), "\r\n"))
	if err != nil {
		return Secret{}, fmt.Errorf("secret file %s: %w", path, err)
	}
	return secret, nil
}

// createSecret writes a file beside path and links it there: a link, unlike a rename, never replaces.
func createSecret(path string, secret []byte) (err error) {
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	temp := f.Name()
	defer func() { err = errors.Join(err, os.Remove(temp), syncDir(dir)) }()
	if err := writeSecret(f, secret); err != nil {
		return err
	}
	err = os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// No links on this file system. A crash between here and the end leaves a short file, which the next start
	// refuses instead of taking another identity.
	f, openErr := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if openErr != nil {
		return openErr
	}
	return writeSecret(f, secret)
}

// writeSecret writes a secret to f, makes it durable and closes f.
func writeSecret(f *os.File, secret []byte) error {
	_, err := f.WriteString(base64.RawURLEncoding.EncodeToString(secret) + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// makeDir makes dir durable with its parents; 0700 since it holds the secret.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories can't be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
