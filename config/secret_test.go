package config_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

func TestSecretPrintsNothing(t *testing.T) {
	text := "hunter2-hunter2-hunter2-hunter2-"
	secret := config.NewSecret([]byte(text))
	c := config.Default()
	c.Keys.Secret, c.AdminSecret = secret, secret
	c.Storage.Database = database(t, "postgres://u:hunter2@h/db")
	printed := append(spellings(secret), spellings(c)...)
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "secret", secret, "config", c, "database", c.Storage.Database)
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "secret", secret, "config", c, "database", c.Storage.Database)
	printed = append(printed, string(encoded), log.String(), cmp.Diff(c, config.Default(), compare))
	for _, s := range printed {
		for _, leak := range []string{"hunter2", "68756e746572", base64.RawURLEncoding.EncodeToString([]byte(text))[:12], "104 117 110"} {
			if strings.Contains(strings.ToLower(s), strings.ToLower(leak)) {
				t.Errorf("shows %q: %s", leak, s)
			}
		}
	}
	if !strings.Contains(log.String(), "REDACTED") || secret.String() != "REDACTED" {
		t.Errorf("log %q", log.String())
	}
	if got := (config.Secret{}).String(); got != "" {
		t.Errorf("unset prints as %q", got)
	}
}

func TestSecretIsACopy(t *testing.T) {
	b := []byte("abc")
	secret := config.NewSecret(b)
	b[0] = 'x'
	secret.Bytes()[1] = 'x'
	if string(secret.Bytes()) != "abc" || secret.IsZero() || !(config.Secret{}).IsZero() {
		t.Errorf("%q", secret.Bytes())
	}
	if !secret.Equal(config.NewSecret([]byte("abc"))) || secret.Equal(config.NewSecret([]byte("abd"))) || secret.Equal(config.Secret{}) {
		t.Error("Equal is wrong")
	}
}

func TestResolveSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "data")
	c := config.Default()
	if _, _, err := c.ResolveSecret(); !errors.Is(err, config.ErrMissingSecret) || !strings.Contains(err.Error(), "missing secret") {
		t.Errorf("no datadir: %v", err)
	}
	c.Storage.Datadir = dir
	first, warnings, err := c.ResolveSecret()
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Bytes()) != 32 || len(warnings) != 1 || !strings.Contains(warnings[0].String(), "back it up") {
		t.Errorf("%d bytes, warnings %v", len(first.Bytes()), warnings)
	}
	again, warnings, err := c.ResolveSecret()
	if err != nil || !again.Equal(first) || len(warnings) != 0 {
		t.Errorf("second start: same %v, warnings %v, %v", again.Equal(first), warnings, err)
	}
	checkSecretFile(t, dir, first)
	if runtime.GOOS != "windows" {
		if err := os.Chmod(c.SecretFile(), 0o640); err != nil {
			t.Fatal(err)
		}
		if _, warnings, err := c.ResolveSecret(); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0].Message, "mode 0640") {
			t.Errorf("group readable: %v, %v", warnings, err)
		}
	}
	c.Keys.Secret = config.NewSecret([]byte(sample))
	if got, warnings, err := c.ResolveSecret(); err != nil || !got.Equal(c.Keys.Secret) || len(warnings) != 0 {
		t.Errorf("configured: %v, %v", warnings, err)
	}
}

// checkSecretFile finds the secret, and nothing else, in dir.
func checkSecretFile(t *testing.T, dir string, want config.Secret) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "secret" {
		t.Errorf("left in the directory: %v", entries)
	}
	text := read(t, filepath.Join(dir, "secret"))
	if text != base64.RawURLEncoding.EncodeToString(want.Bytes())+"\n" {
		t.Error("file is not the base64url of the secret")
	}
	info, err := os.Stat(filepath.Join(dir, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
}

func TestLoadOrCreateSecretOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	secrets, created := make([]config.Secret, 16), make([]bool, 16)
	var group sync.WaitGroup
	for i := range secrets {
		group.Go(func() {
			var err error
			if secrets[i], created[i], err = config.LoadOrCreateSecret(path); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	makers := 0
	for i := range secrets {
		if !secrets[i].Equal(secrets[0]) {
			t.Error("two secrets")
		}
		if created[i] {
			makers++
		}
	}
	if makers != 1 {
		t.Errorf("%d of 16 created it", makers)
	}
	checkSecretFile(t, dir, secrets[0])
}

func TestLoadOrCreateSecretKeepsBadFiles(t *testing.T) {
	good := base64.RawURLEncoding.EncodeToString([]byte(sample))
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "Secret required to be at least 32 bytes, but was 0"},
		{"short", "YWJj\n", "Secret required to be at least 32 bytes, but was 3"},
		{"not base64", strings.Repeat("hunter2 ", 8), "not base64url"},
		{"padded", good + "==", "not base64url"},
		{"two lines", good + "\n" + good, "not base64url"},
		{"huge", strings.Repeat("A", 64<<10+1), "more than 65536 bytes"},
		{"good", good, ""},
		{"good with line end", good + "\r\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			write(t, path, tt.text)
			secret, created, err := config.LoadOrCreateSecret(path)
			if created || read(t, path) != tt.text {
				t.Error("file replaced")
			}
			if tt.want == "" {
				if err != nil || string(secret.Bytes()) != sample {
					t.Errorf("%q, %v", secret.Bytes(), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") || !secret.IsZero() {
				t.Errorf("error %v, want …%s", err, tt.want)
			}
		})
	}
	if _, _, err := config.LoadOrCreateSecret(t.TempDir()); err == nil {
		t.Error("a directory is a secret")
	}
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	if _, _, err := config.LoadOrCreateSecret(filepath.Join(file, "secret")); err == nil {
		t.Error("a secret below a file")
	}
}
