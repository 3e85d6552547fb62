// Package tinycloud holds the nouns of the TinyCloud protocol: Space ids, resources, DIDs, hashes and
// the classes of error a caller may conclude something from.
//
// It does no I/O, reads no clock and imports nothing of this module. A value of [SpaceID], [Resource]
// or [Principal] can only come from its parser, so no other package checks one again.
//
// See docs/protocol.md, "Hashes and CIDs", "Identifiers" and "Attenuation".
package tinycloud
