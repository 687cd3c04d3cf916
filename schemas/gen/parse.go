package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

const sharedNamespace = "orderflow"

// kind is the part of Avro the contract is written in. There is no float,
// double, bytes, fixed or map on purpose: amounts are exact, and everything
// else has a name.
type kind int

const (
	kindPrimitive kind = iota
	kindTimestamp
	kindNullable
	kindArray
	kindRecord
	kindEnum
	kindReference
)

// avroType is one type as written in a file.
type avroType struct {
	kind kind
	name string    // primitive name, or the full name of a record, enum or reference
	elem *avroType // of kindNullable and kindArray
	def  *named    // of kindRecord and kindEnum
}

// named is the definition of a record or an enum.
type named struct {
	Type      string   `json:"type"`
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	Doc       string   `json:"doc"`
	Aliases   []string `json:"aliases"`
	Topic     string   `json:"topic"`
	Aggregate string   `json:"aggregate"`
	Key       string   `json:"key"`
	Fields    []field  `json:"fields"`
	Symbols   []string `json:"symbols"`
	Default   string   `json:"default"`

	namespace string // resolved
}

type field struct {
	Name    string          `json:"name"`
	Raw     json.RawMessage `json:"type"`
	Default json.RawMessage `json:"default"`
	Doc     string          `json:"doc"`
	Aliases []string        `json:"aliases"`

	typ *avroType
}

func (n *named) fullName() string { return n.namespace + "." + n.Name }

// contract is the whole catalogue: the events in the order of their full
// names, and every other definition by its short name.
type contract struct {
	events []*named
	others []*named

	byShortName map[string]*named
	shapes      map[string]string // full name to shape, equal in every file
}

// parseContract reads every .avsc file of fsys and checks it.
func parseContract(fsys fs.FS) (*contract, error) {
	files, err := fs.Glob(fsys, "*.avsc")
	if err != nil {
		return nil, err
	}
	c := &contract{byShortName: map[string]*named{}, shapes: map[string]string{}}
	for _, name := range files {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		if err := c.addFile(strings.TrimSuffix(name, ".avsc"), text); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	byFullName := func(a, b *named) int { return strings.Compare(a.fullName(), b.fullName()) }
	slices.SortFunc(c.events, byFullName)
	slices.SortFunc(c.others, func(a, b *named) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}

func (c *contract) addFile(name string, text []byte) error {
	p := &fileParser{contract: c, defined: map[string]bool{}}
	typ, err := p.parse(text, "")
	if err != nil {
		return err
	}
	if typ.kind != kindRecord {
		return fmt.Errorf("is not a record")
	}
	event := typ.def
	c.others = slices.DeleteFunc(c.others, func(n *named) bool { return n == event })
	c.events = append(c.events, event)
	return checkEvent(name, event)
}

func checkEvent(file string, e *named) error {
	switch {
	case e.Name != file:
		return fmt.Errorf("record %s: a file is named after its event", e.Name)
	case !strings.HasPrefix(e.namespace, sharedNamespace+"."):
		return fmt.Errorf("record %s: namespace %q names no owner", e.Name, e.namespace)
	case e.Topic == "" || e.Aggregate == "":
		return fmt.Errorf("record %s: topic or aggregate is missing", e.Name)
	case len(e.Fields) == 0 || e.Fields[0].Name != "meta" || e.Fields[0].typ.name != sharedNamespace+".EventMeta":
		return fmt.Errorf("record %s: does not begin with meta, an EventMeta", e.Name)
	case e.Key != "" && !slices.ContainsFunc(e.Fields, func(f field) bool { return f.Name == e.Key && f.typ.name == "string" }):
		return fmt.Errorf("record %s: key %q is no string field of it", e.Name, e.Key)
	}
	return nil
}

// fileParser parses one file; a name is defined once in it, where it is first
// used.
type fileParser struct {
	contract *contract
	defined  map[string]bool
}

func (p *fileParser) parse(raw json.RawMessage, namespace string) (*avroType, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil, fmt.Errorf("the type is empty")
	}
	switch raw[0] {
	case '"':
		return p.parseName(raw, namespace)
	case '[':
		return p.parseNullable(raw, namespace)
	default:
		return p.parseObject(raw, namespace)
	}
}

func (p *fileParser) parseName(raw json.RawMessage, namespace string) (*avroType, error) {
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return nil, err
	}
	if _, ok := goPrimitives[name]; ok {
		return &avroType{kind: kindPrimitive, name: name}, nil
	}
	if !strings.Contains(name, ".") {
		name = namespace + "." + name
	}
	if !p.defined[name] {
		return nil, fmt.Errorf("type %s: neither allowed here nor defined before its use", name)
	}
	return &avroType{kind: kindReference, name: name}, nil
}

func (p *fileParser) parseNullable(raw json.RawMessage, namespace string) (*avroType, error) {
	var branches []json.RawMessage
	if err := json.Unmarshal(raw, &branches); err != nil {
		return nil, err
	}
	if len(branches) != 2 || string(branches[0]) != `"null"` {
		return nil, fmt.Errorf("union %s: only [null, T] is allowed", raw)
	}
	elem, err := p.parse(branches[1], namespace)
	if err != nil {
		return nil, err
	}
	if elem.kind == kindNullable || elem.kind == kindArray {
		return nil, fmt.Errorf("union %s: an array or union cannot be null, leave it empty", raw)
	}
	return &avroType{kind: kindNullable, elem: elem}, nil
}

func (p *fileParser) parseObject(raw json.RawMessage, namespace string) (*avroType, error) {
	var head struct{ Type string }
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	switch head.Type {
	case "array":
		var array struct {
			Type  string          `json:"type"`
			Items json.RawMessage `json:"items"`
		}
		if err := strictUnmarshal(raw, &array); err != nil {
			return nil, err
		}
		elem, err := p.parse(array.Items, namespace)
		return &avroType{kind: kindArray, elem: elem}, err
	case "long":
		var logical struct {
			Type        string `json:"type"`
			LogicalType string `json:"logicalType"`
		}
		if err := strictUnmarshal(raw, &logical); err != nil {
			return nil, err
		}
		if logical.LogicalType != "timestamp-micros" {
			return nil, fmt.Errorf("logical type %q: only timestamp-micros is allowed", logical.LogicalType)
		}
		return &avroType{kind: kindTimestamp, name: "long"}, nil
	case "record", "enum":
		return p.parseNamed(raw, namespace)
	}
	return nil, fmt.Errorf("type %q is not allowed in the contract", head.Type)
}

func (p *fileParser) parseNamed(raw json.RawMessage, namespace string) (*avroType, error) {
	n := &named{}
	if err := strictUnmarshal(raw, n); err != nil {
		return nil, err
	}
	n.namespace = namespace
	if n.Namespace != "" {
		n.namespace = n.Namespace
	}
	if p.defined[n.fullName()] {
		return nil, fmt.Errorf("%s is defined twice", n.fullName())
	}
	p.defined[n.fullName()] = true
	if n.Doc == "" {
		return nil, fmt.Errorf("%s: doc is missing", n.fullName())
	}
	typ := &avroType{kind: kindRecord, name: n.fullName(), def: n}
	if n.Type == "enum" {
		typ.kind = kindEnum
		if err := checkEnum(n); err != nil {
			return nil, err
		}
	}
	for i := range n.Fields {
		if err := p.parseField(n, &n.Fields[i]); err != nil {
			return nil, err
		}
	}
	return typ, p.contract.define(n)
}

func checkEnum(n *named) error {
	if n.Default == "" || !slices.Contains(n.Symbols, n.Default) {
		return fmt.Errorf("%s: an enum needs a default that is one of its symbols", n.fullName())
	}
	return nil
}

func (p *fileParser) parseField(n *named, f *field) error {
	if f.Doc == "" {
		return fmt.Errorf("%s.%s: doc is missing", n.fullName(), f.Name)
	}
	if len(f.Raw) == 0 {
		return fmt.Errorf("%s.%s: type is missing", n.fullName(), f.Name)
	}
	typ, err := p.parse(f.Raw, n.namespace)
	if err != nil {
		return fmt.Errorf("%s.%s: %w", n.fullName(), f.Name, err)
	}
	f.typ = typ
	if typ.kind == kindNullable && string(f.Default) != "null" {
		return fmt.Errorf("%s.%s: a nullable field needs the default null", n.fullName(), f.Name)
	}
	return nil
}

// define records n, and refuses a second definition that differs: Go has one
// type per short name, and so has everybody who reads the files.
func (c *contract) define(n *named) error {
	shape := shapeOf(n)
	if known, ok := c.byShortName[n.Name]; ok {
		if known.fullName() != n.fullName() {
			return fmt.Errorf("%s and %s share a name", known.fullName(), n.fullName())
		}
		if c.shapes[n.fullName()] != shape {
			return fmt.Errorf("%s differs from its definition in another file", n.fullName())
		}
		return nil
	}
	c.byShortName[n.Name] = n
	c.shapes[n.fullName()] = shape
	c.others = append(c.others, n)
	return nil
}

func strictUnmarshal(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
