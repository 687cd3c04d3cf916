package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

func TestCutKeepsTheDaysAskedForByteForByte(t *testing.T) {
	t.Parallel()
	const head = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice\n"
	const before = "1,A,x,1,2011-07-11 23:59:00,1.0\n"
	const first = "2,A,\"a, b\",1,2011-07-12 00:00:00,1.0\n"
	const last = "3,A,\xa3 ,1,2011-08-31 23:59:00,1.0\n"
	const after = "4,A,x,1,2011-09-01 00:00:00,1.0\n"
	var full, got bytes.Buffer
	z := gzip.NewWriter(&full)
	io.WriteString(z, head+before+first+last+after)
	z.Close()
	again := bytes.NewReader(full.Bytes())
	if err := cut(&got, &full, "2011-07-12", "2011-08-31"); err != nil {
		t.Fatal(err)
	}
	twice := new(bytes.Buffer)
	if err := cut(twice, again, "2011-07-12", "2011-08-31"); err != nil || !bytes.Equal(twice.Bytes(), got.Bytes()) {
		t.Errorf("the same days give another file, error %v", err)
	}
	r, err := gzip.NewReader(&got)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil || string(text) != head+first+last {
		t.Errorf("got %q, error %v", text, err)
	}
	if err := cut(io.Discard, strings.NewReader("plain"), "", ""); err == nil {
		t.Error("took a file that is not gzip'd")
	}
}
