package node

import (
	"encoding"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// object is a JSON object.
type object = map[string]any

// adminOpenAPI answers with what the admin API is, as OpenAPI 3.1.
func (n *Node) adminOpenAPI(w http.ResponseWriter, _ *http.Request) {
	b, err := json.MarshalIndent(n.openAPI(), "", " ")
	if err != nil {
		sendJSON(w, http.StatusInternalServerError, adminError{err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(append(b, '\n')) // the client may have gone
}

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

// openAPI describes the routes, by the types that they read and write.
func (n *Node) openAPI() object {
	s, paths := schemas{}, map[string]object{}
	for _, x := range n.routes() {
		method, path, _ := strings.Cut(x.pattern, " ")
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path][strings.ToLower(method)] = s.operation(x, path)
	}
	return object{
		"openapi":    "3.1.0",
		"info":       object{"title": "tinycloud-peer admin API", "version": "1", "description": "On the socket of the data directory, and over HTTP with the admin secret as a bearer token. docs/operating.md says what the members mean."},
		"security":   []object{{"admin": []string{}}},
		"paths":      paths,
		"components": object{"schemas": s, "securitySchemes": object{"admin": object{"type": "http", "scheme": "bearer"}}},
	}
}

// schemas are those of named types.
type schemas map[string]any

func (s schemas) operation(x route, path string) object {
	parameters := []object{}
	for _, m := range pathParameter.FindAllStringSubmatch(path, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, name := range x.query {
		parameters = append(parameters, object{"name": name, "in": "query", "schema": object{"type": "string"}})
	}
	good := object{"description": "What was asked for"}
	if x.answer != nil {
		good["content"] = s.content(x.answer)
	}
	op := object{"summary": x.about, "parameters": parameters, "responses": object{"2XX": good, "default": object{"description": "A refusal", "content": s.content(adminError{})}}}
	if x.body != nil {
		op["requestBody"] = object{"required": true, "content": s.content(x.body)}
	}
	return op
}

func (s schemas) content(v any) object {
	return object{"application/json": object{"schema": s.of(reflect.TypeOf(v))}}
}

var textual = reflect.TypeFor[encoding.TextMarshaler]()

// of is the schema of a type, by how encoding/json writes it.
func (s schemas) of(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Kind() != reflect.Pointer && (t.Implements(textual) || reflect.PointerTo(t).Implements(textual)):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return object{"anyOf": []object{s.of(t.Elem()), {"type": "null"}}}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice, reflect.Array:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.named(t)
	case reflect.Interface:
		return object{}
	}
	return object{"type": "integer"}
}

// named refers to the schema of a struct, which it makes at the first time.
func (s schemas) named(t reflect.Type) object {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	if s[name] == nil {
		s[name] = object{} // a type may be within itself
		members, required := object{}, []string{}
		s.members(t, members, &required)
		s[name] = object{"type": "object", "properties": members, "required": required}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (s schemas) members(t reflect.Type, members object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			s.members(f.Type, members, required)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		members[name] = s.of(f.Type)
		if !strings.Contains(options, "omitempty") {
			*required = append(*required, name)
		}
	}
}
