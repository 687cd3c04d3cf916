package main

import (
	"bytes"
	"encoding/json"
)

// textOf renders an event's schema the one way it is ever registered: no white
// space and the attributes in a fixed order, so the text, and with it the
// fingerprint, changes only when the contract does.
func textOf(e *named) string {
	w := &textWriter{}
	w.named(e)
	return w.String()
}

// shapeOf renders a definition with every type inside it by its full name, so
// that two definitions compare equal wherever their parts were first used.
func shapeOf(n *named) string {
	w := &textWriter{byName: true}
	w.named(n)
	return w.String()
}

type textWriter struct {
	bytes.Buffer
	byName bool
}

func (w *textWriter) named(n *named) {
	w.WriteString(`{"type":` + quote(n.Type) + `,"name":` + quote(n.Name))
	if n.Namespace != "" && !w.byName {
		w.WriteString(`,"namespace":` + quote(n.Namespace))
	}
	w.WriteString(`,"doc":` + quote(n.Doc))
	w.strings("aliases", n.Aliases)
	for _, p := range [...][2]string{{"topic", n.Topic}, {"aggregate", n.Aggregate}, {"key", n.Key}} {
		if p[1] != "" {
			w.WriteString(`,"` + p[0] + `":` + quote(p[1]))
		}
	}
	if n.Type == "enum" {
		w.strings("symbols", n.Symbols)
		w.WriteString(`,"default":` + quote(n.Default) + `}`)
		return
	}
	w.WriteString(`,"fields":[`)
	for i := range n.Fields {
		if i > 0 {
			w.WriteByte(',')
		}
		w.field(&n.Fields[i])
	}
	w.WriteString(`]}`)
}

func (w *textWriter) field(f *field) {
	w.WriteString(`{"name":` + quote(f.Name) + `,"type":`)
	w.typ(f.typ)
	if f.Default != nil {
		w.WriteString(`,"default":`)
		// The default was part of a document that parsed.
		_ = json.Compact(&w.Buffer, f.Default)
	}
	w.WriteString(`,"doc":` + quote(f.Doc))
	w.strings("aliases", f.Aliases)
	w.WriteByte('}')
}

func (w *textWriter) typ(t *avroType) {
	switch t.kind {
	case kindPrimitive, kindReference:
		w.WriteString(quote(t.name))
	case kindTimestamp:
		w.WriteString(`{"type":"long","logicalType":"timestamp-micros"}`)
	case kindNullable:
		w.WriteString(`["null",`)
		w.typ(t.elem)
		w.WriteByte(']')
	case kindArray:
		w.WriteString(`{"type":"array","items":`)
		w.typ(t.elem)
		w.WriteByte('}')
	case kindRecord, kindEnum:
		if w.byName {
			w.WriteString(quote(t.name))
			return
		}
		w.named(t.def)
	}
}

func (w *textWriter) strings(attribute string, values []string) {
	if len(values) == 0 {
		return
	}
	w.WriteString(`,"` + attribute + `":[`)
	for i, v := range values {
		if i > 0 {
			w.WriteByte(',')
		}
		w.WriteString(quote(v))
	}
	w.WriteByte(']')
}

func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}
