package importer

import (
	"bytes"
	_ "embed"
	"io"
)

// The sample is cut from the UCI set by mksample; sample/ATTRIBUTION.md says
// from where and under which licence.
//
//go:embed sample/online_retail_sample.csv.gz
var sample []byte

// Sample is a real piece of UCI Online Retail, seven weeks of 2011 with every
// oddity of the whole, as input for an import.
func Sample() io.Reader { return bytes.NewReader(sample) }
