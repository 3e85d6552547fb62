package encryption

import (
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// fields reads the members of an object. The first error stays.
type fields struct {
	object recap.Value
	names  []string // that were asked for
	err    error
}

func fieldsOf(d document) *fields {
	f := &fields{object: d.value}
	if d.value.Kind != recap.Object {
		f.err = fmt.Errorf("not a JSON object")
	}
	return f
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

func (f *fields) member(name string, kind recap.Kind) recap.Value {
	f.names = append(f.names, name)
	v, ok := f.object.Get(name)
	switch {
	case !ok:
		f.fail("missing field `%s`", name)
	case v.Kind != kind:
		f.fail("invalid type of field `%s`", name)
	}
	return v
}

func (f *fields) text(name string) string { return f.member(name, recap.String).Text }

func (f *fields) integer(name string) int64 {
	v := f.member(name, recap.Number)
	n, ok := integer(v)
	if !ok {
		f.fail("field `%s` is no integer", name)
	}
	return n
}

// network reads the id of a network.
func (f *fields) network(name string) tinycloud.NetworkID {
	text := f.text(name)
	if f.err != nil {
		return tinycloud.NetworkID{}
	}
	id, err := tinycloud.ParseNetworkID(text)
	if err != nil {
		f.fail("field `%s`: %v", name, err)
	}
	return id
}

// only refuses members that were not asked for.
func (f *fields) only() {
	for _, m := range f.object.Members {
		if !slices.Contains(f.names, m.Name) {
			f.fail("unknown field `%.40s`, expected one of %v", m.Name, f.names)
		}
	}
}
