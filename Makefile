# The five things one does here. Scripts are in .ci/.
.PHONY: up test lint bench gen

# Run the whole pipeline on this machine.
up:
	go run . up

# Everything that must hold. Installs what it needs.
test:
	@.ci/test

# golangci-lint, built on first use. Formatting: make lint ARGS=--fix
lint:
	@.ci/lint $(ARGS)

# Measure each part beside what it is compared with: docs/benchmarks.md
bench:
	go build -o bin/orderflow .
	bin/orderflow bench ingest
	bin/orderflow bench relay
	bin/orderflow bench consumers

# Go types from schemas/avro.
gen:
	go generate ./schemas/...
