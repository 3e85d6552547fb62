// Package config turns defaults, a tinycloud.toml and the environment into one validated [Config].
//
// It reads files and the environment it is given, and nothing else: it opens no database, binds no port and
// imports no other package of this module. Only [Config.ResolveSecret] and [LoadOrCreateSecret] write, and only
// the secret file.
//
// Invariant: a Config returned by [Load] without error holds no value that a component would refuse as malformed;
// Secrets print as REDACTED whatever verb,
// encoder or logger meets them, and no error or warning repeats one.
//
// Sources, lowest first: defaults, then the file's [default], [release] and [global] tables (the [debug] table is for
// debug builds and is ignored), then TINYCLOUD_* variables, then ROCKET_* variables. See docs/operating.md,
// "Configuration"; the commented tinycloud.toml at the top of the repository is the user's manual.
package config
