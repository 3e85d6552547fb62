package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFileBytes bounds the file; the shipped one is under 8 KiB.
const maxFileBytes = 128 << 10

// document is a parsed tinycloud.toml that can tell the line of a key.
type document struct {
	path string
	text string
	tree map[string]any
}

// findFile returns the tinycloud.toml of dir or its nearest ancestor, "" when there is none.
func findFile(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("working directory: %w", err)
	}
	for {
		path := filepath.Join(dir, "tinycloud.toml")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", nil
		}
		dir = parent
	}
}

func readDocument(path string) (*document, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	if info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%s: configuration file of %d bytes, at most %d", path, info.Size(), maxFileBytes)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	return parseDocument(path, string(text))
}

func parseDocument(path, text string) (*document, error) {
	d := &document{path: path, text: text}
	if _, err := toml.Decode(text, &d.tree); err != nil {
		return nil, d.syntaxError(err)
	}
	return d, nil
}

// syntaxError keeps the parser's words unless they may quote a secret.
func (d *document) syntaxError(err error) error {
	var at toml.ParseError
	if !errors.As(err, &at) {
		return fmt.Errorf("%s: not TOML", d.path)
	}
	message := at.Message
	lines := strings.Split(d.text, "\n")
	if n := at.Position.Line; n >= 1 && n <= len(lines) && mayHoldSecret(at.LastKey+lines[n-1]) {
		message = "syntax error"
	}
	return fmt.Errorf("%s:%d: %s", d.path, at.Position.Line, message)
}

func mayHoldSecret(s string) bool {
	return strings.Contains(strings.ToLower(s), "secret") || strings.Contains(s, "@")
}

// where returns file:line of a key. Only messages need it, so the positions are looked up one at a time.
func (d *document) where(key []string) string {
	var level map[string]toml.Primitive
	md, err := toml.Decode(d.text, &level)
	if err != nil {
		return d.path
	}
	for i, name := range key {
		item, ok := level[name]
		if !ok {
			return d.path
		}
		if i == len(key)-1 {
			if n := lineOf(&md, item); n > 0 {
				return d.path + ":" + strconv.Itoa(n)
			}
			return d.path
		}
		level = nil
		if md.PrimitiveDecode(item, &level) != nil {
			return d.path
		}
	}
	return d.path
}

// lineOf returns the line of a key, for a table without a header of its own that of its first key.
func lineOf(md *toml.MetaData, item toml.Primitive) int {
	var at toml.ParseError
	if errors.As(md.PrimitiveDecode(item, new(positionProbe)), &at) && at.Position.Line > 0 {
		return at.Position.Line
	}
	var below map[string]toml.Primitive
	if md.PrimitiveDecode(item, &below) != nil {
		return 0
	}
	first := 0
	for _, child := range below {
		if n := lineOf(md, child); n > 0 && (first == 0 || n < first) {
			first = n
		}
	}
	return first
}

// positionProbe refuses everything: the decoder answers with the position of what it refused.
type positionProbe struct{}

func (*positionProbe) UnmarshalTOML(any) error { return errors.New("probe") }

// fromTOML converts what the decoder gives.
func fromTOML(x any) value {
	switch x := x.(type) {
	case string:
		return value{kind: kindString, text: x}
	case int64:
		return value{kind: kindInteger, text: strconv.FormatInt(x, 10)}
	case float64:
		return value{kind: kindFloat, text: strconv.FormatFloat(x, 'g', -1, 64)}
	case bool:
		return value{kind: kindBool, text: strconv.FormatBool(x)}
	case []any:
		v := value{kind: kindList}
		for _, item := range x {
			v.list = append(v.list, fromTOML(item))
		}
		return v
	case []map[string]any:
		v := value{kind: kindList}
		for _, item := range x {
			v.list = append(v.list, fromTOML(item))
		}
		return v
	case map[string]any:
		v := value{kind: kindTable, table: map[string]value{}}
		for name, item := range x {
			v.table[name] = fromTOML(item)
		}
		return v
	}
	return value{kind: kindDatetime}
}
