package schemas

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestTodaysCatalogueGoesWithEveryRelease(t *testing.T) {
	t.Parallel()
	released, err := Released()
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Glob(released, "*/*.avsc")
	if err != nil {
		t.Fatal(err)
	}
	report, err := Check(released)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Error(p)
	}
	if report.Compared != len(files) || report.Compared == 0 {
		t.Errorf("compared %d of %d released files", report.Compared, len(files))
	}
}

const event = "orderflow.orders.OrderPlaced"

type checkCase struct {
	old, now string // now is replaced by old in today's text to make the release
	want     []string
}

// checkCases says how a release differed from today's OrderPlaced. A change
// that today's schema makes is the same edit seen from the other side.
func checkCases() map[string]checkCase {
	return map[string]checkCase{
		"nothing": {},
		"a field type": {
			`{"name":"quantity","type":"string"`, `{"name":"quantity","type":"int"`,
			[]string{
				event + " at lines.items.quantity, against v0.0.1: today's cannot read the older: incompatible types",
				event + " at lines.items.quantity, against v0.0.1: the older cannot read today's: incompatible types",
			},
		},
		"a field that was promoted": {
			`{"name":"quantity","type":"long"`, `{"name":"quantity","type":"int"`,
			[]string{event + " at lines.items.quantity, against v0.0.1: today's cannot read the older: incompatible types"},
		},
		"a new field without a default": {
			``, `{"name":"channel","type":"string","doc":"Where the order came in, such as web or the name of an import."},`,
			[]string{event + " at channel, against v0.0.1: today's cannot read the older: reader field has no default and is missing from writer"},
		},
		"a removed field without a default": {
			`{"name":"channel","type":"string","doc":"d"},{"name":"gone","type":"string","doc":"d"}`,
			`{"name":"channel","type":"string","doc":"Where the order came in, such as web or the name of an import."}`,
			[]string{event + " at gone, against v0.0.1: the older cannot read today's: reader field has no default and is missing from writer"},
		},
		"a removed field with a default": {
			`{"name":"channel","type":"string","doc":"d"},{"name":"gone","type":"string","default":"","doc":"d"}`,
			`{"name":"channel","type":"string","doc":"Where the order came in, such as web or the name of an import."}`,
			nil,
		},
		"a new symbol":     {`"symbols":["UNKNOWN","CARD"]`, `"symbols":["UNKNOWN","CARD","BOLETO","VOUCHER","DEBIT","INVOICE"]`, nil},
		"a removed symbol": {`"symbols":["UNKNOWN","WALLET","CARD",`, `"symbols":["UNKNOWN","CARD",`, nil},
		"another unit of time": {
			`{"name":"occurred_at","type":{"type":"long","logicalType":"timestamp-millis"}`,
			`{"name":"occurred_at","type":{"type":"long","logicalType":"timestamp-micros"}`,
			[]string{event + ` at meta.occurred_at, against v0.0.1: the logical type was "timestamp-millis" and is "timestamp-micros"`},
		},
		"another unit of a nullable time": {
			`{"name":"promised_by","type":["null","long"]`,
			`{"name":"promised_by","type":["null",{"type":"long","logicalType":"timestamp-micros"}]`,
			[]string{event + ` at promised_by, against v0.0.1: the logical type was "" and is "timestamp-micros"`},
		},
		"another namespace inside": {
			`"name":"Address","namespace":"orderflow.places"`, `"name":"Address","namespace":"orderflow"`,
			[]string{event + " at ship_to, against v0.0.1: the name was orderflow.places.Address and is orderflow.Address"},
		},
		"another topic": {
			`"topic":"orders.events.v0"`, `"topic":"orders.events.v1"`,
			[]string{event + ", against v0.0.1: the topic was orders.events.v0 and is orders.events.v1"},
		},
		"an event that is gone": {
			`"name":"OrderGuessed"`, `"name":"OrderPlaced"`,
			[]string{"orderflow.orders.OrderGuessed, against v0.0.1: the event is no longer in the catalogue"},
		},
	}
}

func TestCheckNamesThePathOfWhatDoesNotGoTogether(t *testing.T) {
	t.Parallel()
	for name, c := range checkCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := orderPlacedSchema.Text
			if !strings.Contains(text, c.now) {
				t.Fatalf("today's schema does not hold %s", c.now)
			}
			if c.now != "" {
				text = strings.Replace(text, c.now, c.old, 1)
			}
			report, err := Check(fstest.MapFS{"v0.0.1/OrderPlaced.avsc": {Data: []byte(text)}})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range report.Problems {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" || report.Compared != 1 {
				t.Errorf("compared %d (-want +got):\n%s", report.Compared, diff)
			}
		})
	}
}

func TestAReleasedFileThatIsNoSchemaIsAnError(t *testing.T) {
	t.Parallel()
	_, err := Check(fstest.MapFS{"v0.0.1/Broken.avsc": {Data: []byte(`{"type":`)}})
	if err == nil || !strings.Contains(err.Error(), "v0.0.1/Broken.avsc") {
		t.Errorf("got error %v, want one that names the file", err)
	}
}

func TestTopicsAreThoseOfTheDesign(t *testing.T) {
	t.Parallel()
	got := map[string][4]string{}
	for _, topic := range Topics() {
		if want := int32(12); topic.Partitions != want && topic.Name != RelaysTopic {
			t.Errorf("%s has %d partitions, want %d", topic.Name, topic.Partitions, want)
		}
		if topic.Name == RelaysTopic && topic.Partitions != 1 {
			t.Errorf("%s has %d partitions, want 1", topic.Name, topic.Partitions)
		}
		c := topic.Config
		got[topic.Name] = [4]string{c["cleanup.policy"], c["retention.ms"], c["retention.bytes"], c["segment.bytes"]}
	}
	month := [4]string{"delete", "2592000000", "-1"}
	want := map[string][4]string{
		"orders.events.v1":        {"delete", "-1", "-1"},
		"sellers.events.v1":       month,
		"logistics.events.v1":     month,
		"notifications.events.v1": month,
		"inventory.events.v1":     month,
		"payments.events.v1":      month,
		"inventory.stock.v1":      {"compact", "", "", "16777216"},
		"orderflow.relays":        {"compact", "", "", "16777216"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
