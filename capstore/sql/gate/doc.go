// Package gate decides which statements a request may run: what kind a statement is, which abilities permit it, what the
// engine says it touches while it compiles it, and what caveats of the chain and facts of the invocation leave of that.
//
// It knows neither connections nor files, and nothing of tokens: it is told which abilities are held. What it decides about
// statements that write is part of the rules that hosts agree on. Source: docs/decisions/sql.md, "Rules".
package gate

import (
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Held are the abilities that an invocation holds on a database.
type Held uint8

// Abilities. Write lets read, and lets change the schema; admin lets everything.
const (
	Reads Held = 1 << iota
	Writes
	Defines // "schema": the schema and none of the data
	Admin
)

// Hold adds an ability by its name, with or without the service, and reports whether it is one.
func (h *Held) Hold(ability string) bool {
	switch strings.TrimPrefix(ability, "tinycloud.sql/") {
	case "read", "select":
		*h |= Reads
	case "write":
		*h |= Writes
	case "schema":
		*h |= Defines
	case "admin", "*":
		*h |= Admin
	default:
		return false
	}
	return true
}

func (h Held) admin() bool   { return h&Admin != 0 }
func (h Held) writes() bool  { return h&(Writes|Admin) != 0 }
func (h Held) defines() bool { return h&(Defines|Writes|Admin) != 0 }
func (h Held) reads() bool   { return h&(Reads|Writes|Admin) != 0 }

// Permit checks whether the abilities let a statement of a kind run. The error is a refusal.
func (h Held) Permit(k Kind) error {
	switch {
	case k == Pragma && !h.admin():
		return forbidden("PRAGMA operations require admin ability")
	case k == Define && !h.defines():
		return forbidden("DDL operations require admin, schema, or write ability")
	case k != Define && !h.reads():
		return forbidden("Schema ability only permits DDL operations")
	case k == Change && !h.writes():
		return errReadOnly
	}
	return nil
}

// PermitExport checks whether they let the database be exported.
func (h Held) PermitExport() error {
	if !h.reads() {
		return forbidden("Export requires read ability")
	}
	return nil
}

var errReadOnly error = &tinycloud.Refusal{Class: tinycloud.ErrForbidden, Text: "Read-only violation"}

func forbidden(format string, args ...any) error {
	return tinycloud.Refuse(tinycloud.ErrForbidden, "Permission denied: "+format, args...)
}
