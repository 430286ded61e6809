# make run [MODEL=provider/repo/file.gguf] [PORT=8080]
export MODEL PORT PYTHON

.PHONY: install run check test bench

install:
	scripts/install

run: install
	scripts/run

check:
	scripts/install --dev
	scripts/check

test: check
	scripts/test

bench:
	scripts/install --dev
	scripts/bench/relay
