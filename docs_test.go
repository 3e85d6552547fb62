package tinycloud_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"
)

// TestDocs resolves every relative link of the documents, and every reference that a comment makes to one. A comment
// refers to a document by its path from the root and, after a comma, headings in quotes:
//
//	docs/replication.md, "Host log"
//	docs/protocol.md, "CACAO", "The signed text" and "Signature"
//
// A section sign belongs to an RFC, and nothing is named that a reader does not have. A test that a document names exists.
func TestDocs(t *testing.T) {
	found, err := readDocs(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(found.pages) < 10 || found.links < 50 {
		t.Errorf("only %d documents with %d links", len(found.pages), found.links)
	}
	for _, fault := range found.faults {
		t.Error(fault)
	}
}

// TestDocsFaults plants one fault of each kind.
func TestDocsFaults(t *testing.T) {
	const good = "# A page\n\n## Two `words`, here\n\n[a](#two-words-here) [b](sub/b.md#b) [c](https://example.com/#x) `[d](none.md)`\n"
	const comments = "package p\n\n// See docs/a.md, \"A page\" and \"Two\n// words, here\"; also docs/sub/b.md.\n"
	for name, c := range map[string]struct{ page, code, want string }{
		"none":              {good, comments, ""},
		"file of a link":    {"[x](none.md)", comments, "docs/a.md: no none.md"},
		"heading of a link": {good + "[x](sub/b.md#c)", comments, "docs/a.md: no heading #c in sub/b.md"},
		"own heading":       {good + "[x](#none)", comments, "docs/a.md: no heading #none in a.md"},
		"fenced heading":    {good + "```\n## None\n```\n[x](#none)", comments, "docs/a.md: no heading #none in a.md"},
		"file of a comment": {good, "package p // docs/none.md\n", "p.go:1: no docs/none.md"},
		"its heading":       {good, "package p // docs/a.md, \"None\"\n", `p.go:1: no heading "None" in docs/a.md`},
		"elsewhere":         {good, "package p // as design §4 says\n", "p.go:1: design § is in no document here"},
		"by name":           {good, "package p // (design, \"Host log\")\n", "p.go:1: design, \" is in no document here"},
		"RFC":               {good, "package p // RFC 9110 §8.6\n", ""},
		"no such test":      {good + "`TestNone`\n", "package p\n\nfunc TestSome() {}\n", "docs/a.md: no test TestNone"},
		"a test":            {good + "`TestSome`, `FuzzIt`\n```\ngo test -run TestSome\n```\n", "package p\n\nfunc TestSome() {}\n\nfunc FuzzIt() {}\n", ""},
		"another heading":   {good, "package p // docs/a.md, \"A page\" and \"None\"\n", `p.go:1: no heading "None" in docs/a.md`},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := readDocs(fstest.MapFS{
				"docs/a.md": {Data: []byte(c.page)}, "docs/sub/b.md": {Data: []byte("# B\n")}, "p.go": {Data: []byte(c.code)},
				"p_test.go": {Data: []byte(c.code)},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(found.faults, "\n"); c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("found %q, expected %q", got, c.want)
			}
		})
	}
}

// docs is what was found in the documents and comments of a tree.
type docs struct {
	pages  map[string]page // by path
	tests  map[string]bool // by name, in all packages
	links  int
	faults []string
}

// page is a document.
type page struct {
	text     string          // without code
	tests    []string        // that it names
	headings []string        // as they are read
	anchors  map[string]bool // of the headings
}

func readDocs(tree fs.FS) (*docs, error) {
	d := &docs{pages: map[string]page{}, tests: map[string]bool{}}
	var code []string
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (name != "." && strings.HasPrefix(e.Name(), ".") || slices.Contains([]string{"bin", "data", "testdata"}, e.Name())):
			return fs.SkipDir
		case path.Ext(name) == ".md":
			b, err := fs.ReadFile(tree, name)
			d.pages[name] = readPage(string(b))
			return err
		case path.Ext(name) == ".go":
			code = append(code, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, name := range code {
		if err := d.comments(tree, name); err != nil {
			return nil, err
		}
	}
	for name, p := range d.pages {
		d.follow(tree, name, p)
	}
	slices.Sort(d.faults)
	return d, nil
}

// namedTest is the name of a test, or of a target of the fuzzer.
var namedTest = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)

var codeSpan = regexp.MustCompile("`[^`]*`")

func readPage(text string) page {
	p := page{anchors: map[string]bool{}, tests: namedTest.FindAllString(text, -1)}
	var body strings.Builder
	fenced := false
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		body.WriteString(line + "\n")
		marks, heading, ok := strings.Cut(line, " ")
		if !ok || strings.Trim(marks, "#") != "" || marks == "" {
			continue
		}
		heading = strings.ReplaceAll(strings.TrimSpace(heading), "`", "")
		p.headings = append(p.headings, heading)
		name := anchor(heading)
		for n := 1; p.anchors[name]; n++ {
			name = fmt.Sprintf("%s-%d", anchor(heading), n)
		}
		p.anchors[name] = true
	}
	p.text = codeSpan.ReplaceAllString(body.String(), "")
	return p
}

// anchor is the fragment by which GitHub links to a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// follow checks the relative links of a document, and the tests it names.
func (d *docs) follow(tree fs.FS, name string, p page) {
	for _, test := range p.tests {
		if !d.tests[test] {
			d.fault("%s: no test %s", name, test)
		}
	}
	for _, m := range link.FindAllStringSubmatch(p.text, -1) {
		target, fragment, has := strings.Cut(m[1], "#")
		if strings.Contains(target, ":") {
			continue // of the web
		}
		d.links++
		at := path.Join(path.Dir(name), target)
		if target == "" {
			at, target = name, path.Base(name)
		}
		if _, err := fs.Stat(tree, at); err != nil {
			d.fault("%s: no %s", name, target)
		} else if has && !d.pages[at].anchors[fragment] {
			d.fault("%s: no heading #%s in %s", name, fragment, target)
		}
	}
}

var (
	reference = regexp.MustCompile(`\bdocs/[\w/-]+\.md((?:(?:,| and|, and) "[^"]+")*)`)
	quoted    = regexp.MustCompile(`"([^"]+)"`)
	elsewhere = regexp.MustCompile(`\S+ (\d+ )?§|\bdesign, "`)
	ofRFC     = regexp.MustCompile(`\bRFC \d+ §$`)
)

// comments checks what the comments of a file refer to.
func (d *docs) comments(tree fs.FS, name string) error {
	b, err := fs.ReadFile(tree, name)
	if err != nil {
		return err
	}
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, name, b, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, decl := range f.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && strings.HasSuffix(name, "_test.go") && namedTest.MatchString(f.Name.Name) {
			d.tests[f.Name.Name] = true
		}
	}
	for _, group := range f.Comments {
		text := strings.Join(strings.Fields(group.Text()), " ")
		for _, m := range elsewhere.FindAllString(text, -1) {
			if !ofRFC.MatchString(m) {
				d.fault("%s:%d: %s is in no document here", name, files.Position(group.Pos()).Line, m)
			}
		}
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			where := fmt.Sprintf("%s:%d", name, files.Position(group.Pos()).Line)
			at := strings.TrimSuffix(m[0], m[1])
			p, ok := d.pages[at]
			if !ok {
				d.fault("%s: no %s", where, at)
				continue
			}
			for _, h := range quoted.FindAllStringSubmatch(m[1], -1) {
				if !slices.Contains(p.headings, h[1]) {
					d.fault("%s: no heading %q in %s", where, h[1], at)
				}
			}
		}
	}
	return nil
}

func (d *docs) fault(format string, args ...any) {
	d.faults = append(d.faults, fmt.Sprintf(format, args...))
}
