package importer

// countryCode maps a country as the UCI file writes it to ISO 3166-1 alpha-2.
// mapped says that the name is no country's own: a nickname, a group of islands
// or states, or nothing at all. Those take the nearest code there is: Jersey for
// the Channel Islands (the larger of its two), the reserved EU for the European
// Community, the user-assigned ZZ for Unspecified.
func countryCode(name string) (code string, mapped, known bool) {
	if code, ok := nicknames[name]; ok {
		return code, true, true
	}
	code, known = countries[name]
	return code, false, known
}

var nicknames = map[string]string{
	"Channel Islands":    "JE",
	"EIRE":               "IE",
	"European Community": "EU",
	"RSA":                "ZA",
	"Unspecified":        "ZZ",
}

var countries = map[string]string{
	"Australia":            "AU",
	"Austria":              "AT",
	"Bahrain":              "BH",
	"Belgium":              "BE",
	"Brazil":               "BR",
	"Canada":               "CA",
	"Cyprus":               "CY",
	"Czech Republic":       "CZ",
	"Denmark":              "DK",
	"Finland":              "FI",
	"France":               "FR",
	"Germany":              "DE",
	"Greece":               "GR",
	"Hong Kong":            "HK",
	"Iceland":              "IS",
	"Israel":               "IL",
	"Italy":                "IT",
	"Japan":                "JP",
	"Lebanon":              "LB",
	"Lithuania":            "LT",
	"Malta":                "MT",
	"Netherlands":          "NL",
	"Norway":               "NO",
	"Poland":               "PL",
	"Portugal":             "PT",
	"Saudi Arabia":         "SA",
	"Singapore":            "SG",
	"Spain":                "ES",
	"Sweden":               "SE",
	"Switzerland":          "CH",
	"USA":                  "US",
	"United Arab Emirates": "AE",
	"United Kingdom":       "GB",
}
