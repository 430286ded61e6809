# make run [MODEL=provider/repo/file.gguf] [PORT=8080]
export MODEL PORT PYTHON

.PHONY: install run check test bench package bench-memory

install:
	scripts/install

run: install
	scripts/run

check:
	scripts/install --dev
	scripts/check

test: check
	scripts/test

bench-memory:
	scripts/install --dev
	scripts/bench/memory

bench:
	scripts/install --dev
	scripts/bench/relay

# make package [REPO=URL]: the zip of the ClearML application, made from the form's fields.
package: install
	.venv/bin/python scripts/application templates/llamacpp-deployment.app.conf
	.venv/bin/python -m app package $(if $(REPO),--repo $(REPO))
