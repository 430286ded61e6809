# make run [MODEL=provider/repo/file.gguf] [PORT=8080]
export MODEL PORT PYTHON

.PHONY: install run check test every-way bench bench-memory package

install:
	scripts/install

run: install
	scripts/run

check:
	scripts/install --dev
	scripts/check

test: check
	scripts/test

# Every way to start an instance, and everything that people do next, by a real agent, which installs
# every package anew once: 7 minutes.
every-way: check
	EVERY_WAY=1 scripts/test -n 3 tests/end_to_end/test_every_way.py tests/end_to_end/test_agent.py

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
