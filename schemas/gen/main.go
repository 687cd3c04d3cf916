// Command gen turns the contract, schemas/avro/*.avsc, into Go: one struct per
// record, one string type per enum, and the table of schemas with the text
// that is registered. It also holds the contract to the rules of the house
// (see parse.go), so a file that breaks one cannot be generated from.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	dir := flag.String("dir", "avro", "folder of the .avsc files")
	out := flag.String("out", "events.gen.go", "file to write")
	flag.Parse()
	if err := run(*dir, *out); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(dir, out string) error {
	source, err := Generate(os.DirFS(dir))
	if err != nil {
		return err
	}
	return os.WriteFile(out, source, 0o644)
}
