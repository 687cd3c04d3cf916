package orders

import (
	_ "embed"
	"net/http"
)

//go:embed openapi.json
var openAPIDocument []byte

//go:embed docs.html
var docsPage []byte

// openAPI answers GET /openapi.json: the contract, which tests hold against
// real answers.
func openAPI(w http.ResponseWriter, _ *http.Request) error {
	writeBody(w, http.StatusOK, contentJSON, openAPIDocument)
	return nil
}

// docs answers GET /docs: a page that shows the contract. It loads nothing
// from elsewhere.
func docs(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	writeBody(w, http.StatusOK, "text/html; charset=utf-8", docsPage)
	return nil
}

// describeProblem answers GET /problems/{code}, where the type of a problem
// points.
func describeProblem(w http.ResponseWriter, r *http.Request) error {
	c := code(r.PathValue("code"))
	k, known := catalogue[c]
	if !known {
		return problemOf(codeNotFound, "")
	}
	text := string(c) + "\n\n" + k.title + "\n" + k.meaning + "\n"
	w.Header().Set("X-Content-Type-Options", "nosniff")
	writeBody(w, http.StatusOK, "text/plain; charset=utf-8", []byte(text))
	return nil
}
