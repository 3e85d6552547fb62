package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
)

type configCmd struct {
	Check configCheckCmd `cmd:"" default:"1" help:"Say what is wrong with the configuration, and what it comes to."`
}

type configCheckCmd struct{ answer }

// checked is what a configuration comes to.
type checked struct {
	File     string   `json:"file"` // "" when there is none
	Datadir  string   `json:"datadir"`
	Database string   `json:"database"`
	API      string   `json:"api"`
	Listen   []string `json:"listen"`
	Warnings []string `json:"warnings"`
}

// Run reads the configuration as "serve" does; nothing is opened.
func (c *configCheckCmd) Run(p *program) error {
	file, err := p.source().Locate()
	if err != nil {
		return err
	}
	cfg, warnings, err := p.load()
	if err != nil {
		return err
	}
	out := checked{File: file, Datadir: cfg.Storage.Datadir, Database: cfg.Storage.Database.String(), Listen: cfg.P2P.Listen, Warnings: []string{}}
	if out.Datadir != "" {
		if out.Datadir, err = filepath.Abs(out.Datadir); err != nil {
			return err
		}
	}
	out.API = fmt.Sprintf("http://%s:%d", cfg.Address, cfg.Port)
	if cfg.TLS.On() {
		out.API = fmt.Sprintf("https://%s:%d", cfg.Address, cfg.Port)
	}
	for _, w := range warnings {
		out.Warnings = append(out.Warnings, w.String())
	}
	if c.JSON {
		return printJSON(p.out, out)
	}
	fmt.Fprintf(p.out, "file      %s\ndata      %s\ndatabase  %s\napi       %s\n", cmp.Or(out.File, "none"), cmp.Or(out.Datadir, "none"), out.Database, out.API)
	for _, a := range out.Listen {
		fmt.Fprintf(p.out, "listen    %s\n", a)
	}
	for _, w := range out.Warnings {
		fmt.Fprintf(p.out, "warning   %s\n", w)
	}
	if _, missing := cfg.SecretMissing(); missing != nil {
		return missing
	}
	if cfg.Keys.Secret.IsZero() && cfg.SecretFile() == "" {
		return errors.New("missing secret: set keys.secret or storage.datadir")
	}
	fmt.Fprintln(p.out, "it is in order")
	return nil
}
