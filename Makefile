# make run [MODEL=provider/repo/file.gguf] [PORT=8080]
export MODEL PORT PYTHON

.PHONY: install run check test every-way simulate chaos soak bench bench-memory package

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

# make simulate [SEEDS=1000] [FIRST=0] [LONG=1]: the whole app on a virtual clock, one world a seed,
# and as many fleets: doors, agents and instances.
simulate:
	scripts/install --dev
	.venv/bin/python -m tests.simulation --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0) $(if $(LONG),--long)
	.venv/bin/python -m tests.simulation --fleet --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0) $(if $(LONG),--long)

# make chaos [SEEDS=20] [FIRST=0]: a real instance a seed, while faults are injected. As root it can
# do the most (file systems that fill, the kernel that kills for memory).
chaos:
	scripts/install --dev
	.venv/bin/python -m tests.chaos --seeds $(or $(SEEDS),20) --first $(or $(FIRST),0)

# make soak [MINUTES=60]: one instance under mixed callers and memory pressure; what has grown?
soak:
	scripts/install --dev
	scripts/bench/soak --minutes $(or $(MINUTES),60)

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
