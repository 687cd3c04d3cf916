// Command mksample cuts the importer's embedded sample out of the full UCI
// Online Retail file: the rows of some days, byte for byte, under the header,
// gzip'd without a time stamp, so that the same days give the same file.
//
//	go run ./producers/importer/mksample -in online_retail.csv.gz \
//	    -from 2011-07-12 -to 2011-08-31 -out producers/importer/sample/online_retail_sample.csv.gz
//
// The file has a row a line, in order of time.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	in := flag.String("in", "online_retail.csv.gz", "the full file")
	out := flag.String("out", "online_retail_sample.csv.gz", "the sample")
	from := flag.String("from", "2011-07-12", "first day")
	to := flag.String("to", "2011-08-31", "last day")
	flag.Parse()
	if err := run(*in, *out, *from, *to); err != nil {
		fmt.Fprintln(os.Stderr, "mksample:", err)
		os.Exit(1)
	}
}

func run(in, out, from, to string) error {
	src, err := os.Open(in)
	if err != nil {
		return err
	}
	defer src.Close()
	var b bytes.Buffer
	if err := cut(&b, src, from, to); err != nil {
		return fmt.Errorf("cut %s: %w", in, err)
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}

// cut copies the header and the rows whose day is from, to or between.
func cut(dst io.Writer, src io.Reader, from, to string) error {
	plain, err := gzip.NewReader(src)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(dst, gzip.BestCompression)
	if err != nil {
		return err
	}
	rows := bufio.NewScanner(plain)
	for n := 0; rows.Scan(); n++ {
		d := day(rows.Bytes())
		if n > 0 && (d < from || d > to) {
			continue
		}
		if _, err := fmt.Fprintf(z, "%s\n", rows.Bytes()); err != nil {
			return err
		}
	}
	return errors.Join(rows.Err(), z.Close())
}

// day finds the day of a row. Descriptions may hold commas, so it looks for the
// first field that is a time, not for the fifth field.
func day(row []byte) string {
	for field := range bytes.SplitSeq(row, []byte{','}) {
		if len(field) == len("2006-01-02 15:04:05") && field[4] == '-' && field[7] == '-' && field[10] == ' ' {
			return string(field[:10])
		}
	}
	return ""
}
