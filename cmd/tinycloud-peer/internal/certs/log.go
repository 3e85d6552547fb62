package certs

import (
	"log/slog"
	"maps"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger has lines of certmagic in the node's log. What it says of its own work is for debugging; an [ACME] tells what came of it.
func zapLogger(log *slog.Logger) *zap.Logger { return zap.New(core{log}) }

// core writes to a logger of the standard library.
type core struct{ log *slog.Logger }

// Enabled lets the logger decide.
func (c core) Enabled(zapcore.Level) bool { return true }

// With returns a core whose lines have these fields.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.log.With(attributes(fields)...)}
}

// Check adds the core to those that write a line.
func (c core) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return to.AddCore(e, c)
}

// Write writes a line.
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	write := c.log.Debug
	if e.Level >= zapcore.DPanicLevel {
		write = c.log.Error
	}
	write(e.Message, attributes(fields)...)
	return nil
}

// Sync does nothing.
func (c core) Sync() error { return nil }

func attributes(fields []zapcore.Field) (out []any) {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	for _, name := range slices.Sorted(maps.Keys(enc.Fields)) {
		out = append(out, name, enc.Fields[name])
	}
	return out
}
