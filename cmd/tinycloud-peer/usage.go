package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	mangokong "github.com/alecthomas/mango-kong"
	"github.com/muesli/roff"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// checkArguments finds what the parser takes for something else: a word that is nearly a verb, which it gives to "serve",
// and a Space whose owner's address has a wrong checksum, which would be another Space.
func checkArguments(model *kong.Application, args []string) error {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		if err := checkVerb(model, args[0]); err != nil {
			return err
		}
	}
	for _, arg := range args {
		if err := checkChecksum(arg); err != nil {
			return err
		}
	}
	return nil
}

func checkVerb(model *kong.Application, word string) error {
	var near []string
	for _, verb := range model.Children {
		if verb.Name == word || slices.Contains(verb.Aliases, word) {
			return nil
		}
		if !verb.Hidden && (strings.HasPrefix(verb.Name, word) || distance(verb.Name, word) <= 2) {
			near = append(near, fmt.Sprintf("%q", verb.Name))
		}
	}
	if len(near) == 0 {
		return nil // the parser says so
	}
	return fmt.Errorf("unexpected argument %s, did you mean %s?", word, strings.Join(near, " or "))
}

// distance is how many letters have to be changed, added or left out.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

var address = regexp.MustCompile(`^tinycloud:pkh:eip155:[0-9]+:(0x[0-9a-fA-F]{40}):`)

// checkChecksum refuses an address in both cases that is not its own EIP-55 spelling (docs/protocol.md, "Space id"): the
// API takes all spellings for one address, but who types one may have mistyped it.
func checkChecksum(arg string) error {
	m := address.FindStringSubmatch(arg)
	if m == nil {
		return nil
	}
	digits := m[1][2:]
	if digits == strings.ToLower(digits) || digits == strings.ToUpper(digits) {
		return nil
	}
	id, err := tinycloud.ParseSpaceID(arg)
	if err != nil || strings.Contains(id.String(), m[1]) {
		return nil // the parser says what is wrong
	}
	return fmt.Errorf("%s: the checksum of %s is wrong, it may be mistyped; if it is not, write it in small letters", arg, m[1])
}

type manCmd struct{}

// Run prints a page that man shows: tinycloud-peer man >/usr/local/share/man/man1/tinycloud-peer.1
func (c *manCmd) Run(p *program) error {
	_, err := fmt.Fprint(p.out, mangokong.NewManPage(1, p.model).Build(roff.NewDocument()))
	return err
}
