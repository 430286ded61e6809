"""The whole app with its real children, while faults are injected: `make chaos`. How it works, and
what must hold, is in docs/architecture.md. The soak (scripts/bench/soaks) has the same callers."""
