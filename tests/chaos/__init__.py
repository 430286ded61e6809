"""The whole app with its real children, while faults are injected (`make chaos`), or for long
(`make soak`, scripts/bench/soaks, which has the callers of this folder)."""
