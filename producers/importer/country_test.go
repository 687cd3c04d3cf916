package importer

import (
	"strings"
	"testing"
)

// The 38 countries of the set, written down a second time.
const theCountries = `AE United Arab Emirates|AT Austria|AU Australia|BE Belgium|BH Bahrain|BR Brazil|CA Canada|CH Switzerland|
CY Cyprus|CZ Czech Republic|DE Germany|DK Denmark|ES Spain|EU European Community|FI Finland|FR France|GB United Kingdom|
GR Greece|HK Hong Kong|IE EIRE|IL Israel|IS Iceland|IT Italy|JE Channel Islands|JP Japan|LB Lebanon|LT Lithuania|MT Malta|
NL Netherlands|NO Norway|PL Poland|PT Portugal|SA Saudi Arabia|SE Sweden|SG Singapore|US USA|ZA RSA|ZZ Unspecified`

func TestEveryCountryOfTheSetHasItsCode(t *testing.T) {
	t.Parallel()
	all := strings.Split(theCountries, "|")
	for _, c := range all {
		want, name, _ := strings.Cut(strings.TrimSpace(c), " ")
		if got, _, known := countryCode(name); !known || got != want {
			t.Errorf("%s: %q, known %v, want %s", name, got, known, want)
		}
	}
	if len(all) != 38 || len(countries)+len(nicknames) != 38 {
		t.Errorf("%d countries here, %d there, want 38", len(all), len(countries)+len(nicknames))
	}
}
