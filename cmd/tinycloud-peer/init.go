package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

type initCmd struct {
	Dir     string `arg:"" optional:"" default:"." help:"Directory to write to; made if missing."`
	Profile string `enum:"local,home,server" default:"home" help:"local: on this machine alone. home: behind a router, found by other hosts. server: on the open internet."`
	answer
	Domain []string `placeholder:"NAME" help:"With server: names for which it gets certificates by itself. Without, a proxy speaks TLS before it."`
}

// Help tells what the profiles are.
func (*initCmd) Help() string {
	return "A profile is a choice of settings to begin with, all of them in the file that is written. " +
		"Every one keeps its data in data/ beside the file."
}

// initial is the configuration of a new node; everything else has its default.
var initial = template.Must(template.New("tinycloud.toml").Parse(`# Configuration of tinycloud-peer, profile {{.Profile}}. Relative paths are relative to this file.

[global]
{{- if and .Server .Domain}}
    # The HTTP API, for everybody. Ports 443 and 80 have to lead here: certificates come by themselves.
    address = "0.0.0.0"
    port = 443

[global.tls]
    domain = [{{.Domain}}]
{{- else if .Server}}
    # The HTTP API, behind a proxy on this machine that speaks TLS. One elsewhere: name its address.
    # address = "127.0.0.1"
    # port = 8000
    trusted_proxies = ["127.0.0.1", "::1"]
{{- else}}
    # The HTTP API, on this machine alone.
    # address = "127.0.0.1"
    # port = 8000
{{- end}}

[global.storage]
    # Root of all local data: secret, database, values.
    datadir = "./data"
{{- if not .Local}}
    # What a Space may hold.
    limit = "{{if .Server}}1 GiB{{else}}10 GiB{{end}}"
{{- end}}

[global.p2p]
{{- if .Local}}
    # Other hosts are met on this machine alone.
    listen = ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1"]
    nat = false
{{- else}}
    # listen = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"]
    # Addresses to tell other hosts instead of those found out, without /p2p/….
    # announce = []
{{- end}}
{{- if .Home}}
    # Find hosts of our Spaces on the local network.
    mdns = true
{{- end}}
{{- if .Server}}
    nat = false
{{- end}}

[global.prometheus]
    # port = 8001

# The web page, on this machine alone: "tinycloud-peer page" prints a link to it.
[global.admin]
    # port = 8002
`))

// Run writes tinycloud.toml and data/secret and replaces neither.
func (c *initCmd) Run(p *program) error {
	if len(c.Domain) > 0 && c.Profile != "server" {
		return errors.New("--domain is for --profile server")
	}
	file := filepath.Join(c.Dir, "tinycloud.toml")
	secretFile := filepath.Join(c.Dir, "data", "secret")
	for _, name := range []string{file, secretFile} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already", name)
		}
	}
	text, err := c.configuration()
	if err != nil {
		return err
	}
	secret, _, err := config.LoadOrCreateSecret(secretFile)
	if err != nil {
		return err
	}
	keys, err := hostkeys.New(secret.Bytes())
	if err != nil {
		return err
	}
	if err := writeNew(file, text); err != nil {
		return err
	}
	did := hostkeys.DIDKey(keys.NodeKey().Public().(ed25519.PublicKey))
	if c.JSON {
		return printJSON(p.out, map[string]string{"configuration": file, "secret": secretFile, "profile": c.Profile, "did": did})
	}
	fmt.Fprintf(p.out, "wrote %s, profile %s\nwrote %s: back it up, without it this node is no host of its Spaces any more\nnode  %s\n\n",
		file, c.Profile, secretFile, did)
	return c.next(p, file)
}

// configuration is the text of the file; it is read once, so that what is wrong with it is told before it is written.
func (c *initCmd) configuration() (string, error) {
	var domain []string
	for _, d := range c.Domain {
		domain = append(domain, fmt.Sprintf("%q", d))
	}
	var b strings.Builder
	err := initial.Execute(&b, struct {
		Profile, Domain     string
		Local, Home, Server bool
	}{c.Profile, strings.Join(domain, ", "), c.Profile == "local", c.Profile == "home", c.Profile == "server"})
	if err != nil {
		return "", err
	}
	return b.String(), config.Check("tinycloud.toml", b.String())
}

// next says what comes after.
func (c *initCmd) next(p *program, file string) error {
	run := "tinycloud-peer"
	if c.Dir != "." {
		run += " --config " + file
	}
	steps := []string{
		run, "start the node",
		run + " page", "in another terminal: a link to its web page, http://127.0.0.1:8002/",
		run + " status", "how it is",
		run + " host SPACE", "make it a host of a Space, by its owner's signature",
	}
	if c.Profile != "local" {
		steps = append(steps, run+" invite", "let a second node ask it about every Space")
	}
	if c.Profile == "server" {
		if len(c.Domain) == 0 {
			steps = append(steps, "", "put a proxy with TLS before http://127.0.0.1:8000, or begin anew with --domain NAME")
		} else {
			steps = append(steps, "", "let ports 80 and 443 of "+strings.Join(c.Domain, ", ")+" lead here; a program that is not root needs CAP_NET_BIND_SERVICE")
		}
		steps = append(steps, "", "open port 4001 (TCP and UDP) for other hosts")
	}
	fmt.Fprintln(p.out, "Next:")
	for i := 0; i < len(steps); i += 2 {
		if steps[i] != "" {
			fmt.Fprintf(p.out, "  %s\n", steps[i])
		}
		fmt.Fprintf(p.out, "      %s\n", steps[i+1])
	}
	return nil
}

// writeNew writes a file that is not there yet.
func writeNew(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}
