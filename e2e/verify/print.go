package verify

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "outbox %s: %d rows, %d published by checkpoint %d, %d in the backlog\n\n",
		r.Source, r.Outbox.Rows, r.Outbox.Published, r.Checkpoint.Number, r.Outbox.Backlog)
	fmt.Fprintln(t, "TOPIC\tEVENTS\tPUBLISHED ROWS\tEXPIRED")
	for _, topic := range r.Log.Topics {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\n", topic.Topic, topic.Events, topic.PublishedRows, topic.Expired)
	}
	fmt.Fprintln(t, "\nGROUP\tAPPLIED\tEXPECTED\tWAITING\tHELD\tOK")
	for i := range r.Groups {
		g := &r.Groups[i]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%t\n", g.Group, g.Applied, g.Expected, g.Waiting, g.Held, g.OK)
	}
	fmt.Fprintln(t, "\nFAULT\tCOUNT")
	for _, f := range r.faults() {
		fmt.Fprintf(t, "%s\t%d\n", f.name, f.Count)
	}
	r.printPlaces(t)
	fmt.Fprintf(t, "\n%s (%d rows and %d records in %.1f s)\n", r.verdict(), r.Outbox.Rows, r.Log.Events, r.Seconds)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}

// printPlaces names what is wrong, and what could not be looked at.
func (r *Report) printPlaces(w io.Writer) {
	fmt.Fprintln(w)
	if r.Checkpoint.LostInKafka {
		fmt.Fprintln(w, "Kafka lost the relay's checkpoint; compared with the database's copy of it")
	}
	for _, f := range r.faults() {
		for _, p := range f.First {
			fmt.Fprintf(w, "%s: %s\n", f.name, p)
		}
	}
	for i := range r.Groups {
		g := &r.Groups[i]
		for _, m := range g.Mismatches {
			fmt.Fprintf(w, "group %s at %s[%d]@%d: %s (applied %d, expected %d) %s\n",
				g.Group, m.Topic, m.Partition, m.NextOffset, m.Found, m.Applied, m.Expected, m.EventID)
		}
		for _, id := range g.Dead {
			fmt.Fprintf(w, "group %s holds dead letter %s\n", g.Group, id)
		}
	}
	for _, s := range r.Unchecked {
		fmt.Fprintf(w, "not checked: %s\n", s)
	}
}

// String gives the event, where it is, and what is wrong there.
func (p Place) String() string {
	s := fmt.Sprintf("%s[%d]", p.Topic, p.Partition)
	if p.Offset >= 0 {
		s += fmt.Sprintf("@%d", p.Offset)
	}
	if p.EventID != "" {
		s = p.EventID + " in " + s
	}
	if p.Note != "" {
		s += ": " + p.Note
	}
	return s
}

func (r *Report) verdict() string {
	switch {
	case !r.OK():
		return fmt.Sprintf("NOT OK: %d lost, %d twice, %d out of order", r.Lost(), r.Twice(), r.OutOfOrder())
	case len(r.Unchecked) > 0:
		return "ok, as far as it can be checked"
	default:
		return "ok"
	}
}
