// Package bench measures the parts of the platform beside what they are
// compared with: in the same run, in turns, medians of several rounds. It
// measures the real thing (real Postgres, real Kafka, the real binary with
// headers, framing and metrics) or says what it lacks.
package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Reference is what a value is compared with.
type Reference struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// Row is one result.
type Row struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	// Unit is of Value and of the reference's value.
	Unit      string     `json:"unit"`
	Reference *Reference `json:"reference,omitempty"`
	// Ratio is Value over the reference's, the median of the rounds' ratios.
	Ratio float64 `json:"ratio,omitempty"`
	// Goal says in words what holds or does not; empty if there is none.
	Goal  string `json:"goal,omitempty"`
	Holds bool   `json:"holds"`
}

// compared makes a row of rounds in which value and reference were measured
// beside each other, for a goal that the ratio is at least atLeast.
func compared(name, unit, reference string, values, references []float64, atLeast float64) Row {
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = values[i] / references[i]
	}
	r := Row{
		Name: name, Value: median(values), Unit: unit,
		Reference: &Reference{Name: reference, Value: median(references)}, Ratio: median(ratios),
	}
	r.Holds = r.Ratio >= atLeast
	if atLeast > 0 {
		r.Goal = fmt.Sprintf("ratio >= %.2g", atLeast)
	}
	return r
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// Print writes rows as a table, or as one line of JSON each.
func Print(w io.Writer, rows []Row, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false) // a goal is ">= 0.9", for people too
		for _, r := range rows {
			if err := enc.Encode(r); err != nil {
				return fmt.Errorf("print row: %w", err)
			}
		}
		return nil
	}
	const line = "%-34s %14s %-12s %14s %7s  %-16s %s\n"
	if _, err := fmt.Fprintf(w, line, "NAME", "VALUE", "UNIT", "REFERENCE", "RATIO", "GOAL", ""); err != nil {
		return fmt.Errorf("print rows: %w", err)
	}
	for _, r := range rows {
		reference, ratio, verdict := "", "", ""
		if r.Reference != nil {
			reference, ratio = number(r.Reference.Value), fmt.Sprintf("%.2f", r.Ratio)
		}
		if r.Goal != "" {
			verdict = map[bool]string{true: "holds", false: "MISSED"}[r.Holds]
		}
		if _, err := fmt.Fprintf(w, line, r.Name, number(r.Value), r.Unit, reference, ratio, r.Goal, verdict); err != nil {
			return fmt.Errorf("print rows: %w", err)
		}
		if r.Reference != nil {
			if _, err := fmt.Fprintf(w, "  against %s\n", r.Reference.Name); err != nil {
				return fmt.Errorf("print rows: %w", err)
			}
		}
	}
	return nil
}

func number(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
