# The one front door. Everything here calls cargo, npm or xtask; works with GNU make 3.81.

PREFIX ?= $(HOME)/.local
BIN    := $(or $(CARGO_TARGET_DIR),target)/debug
ARGS   ?=
SEEDS  ?= 1000
SEED   ?=
TIMES  ?= 20

.PHONY: help play build game-load-local test dst mutants kill-matrix fuzz soak bench lint fmt gen tidy check install clean-state

help: ## This list
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-18s %s\n", $$1, $$2 }'

play: ## Build what a game needs and start it: a page to play on is printed
	@sh xtask/play.sh $(ARGS)

build: ## The command and the bundled games
	cargo build -p spawnpoint -p spice -p arena-tcp

game-load-local: build ## Simulated players against a running `spawnpoint up` (CLIENTS, TARGET_URL, MATCH_DURATION, SPAWN_RATE)
	$(BIN)/spawnpoint load $(ARGS)

test: ## Every suite; at the end which ran, which did not and why (SUITE=rust for one)
	cargo run -q -p xtask -- test $(SUITE)

dst: ## Seeded worlds (SEEDS=1000 of them, or one: SEED=7; more in ARGS, see docs/reliability.md)
	cd crates/dst && cargo run -q --profile simulation --features simulation -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

mutants: ## Injected bugs, and at which seed the simulation finds each (SEEDS worlds at most); written into docs/reliability.md
	cd crates/dst && cargo run -q --profile simulation --features simulation -- --mutants --seeds $(SEEDS) --write ../../docs/reliability.md $(ARGS)

kill-matrix: ## kill -9 of the real thing at each named point and at any moment, under load, TIMES=20 each; written into docs/reliability.md
	cargo build -q -p spawnpoint-matrix -p spice -p arena-tcp
	cargo build -q -p spawnpoint --features faults --bin spawnpoint-faults
	cargo run -q -p spawnpoint-matrix -- --times $(TIMES) --write docs/reliability.md $(ARGS)

fuzz: ## Look for inputs that break a parser, TIME=60 seconds each (TARGETS="frames ids", KEEP=1 adds what was learned)
	cargo run -q -p xtask -- fuzz --time $(or $(TIME),60) $(if $(KEEP),--keep) $(TARGETS)

bench: ## Measure, as ratios side by side; docs/benchmarks.md says how to read it
	cargo build --release -p spawnpoint -p spice -p spawnpoint-bench
	target/release/spawnpoint-bench all $(ARGS)

lint: ## Format, clippy with warnings as errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p spawnpoint-dst --all-targets --features simulation -- -D warnings
	cargo clippy -p spawnpoint --features faults --bin spawnpoint-faults -- -D warnings

fmt: ## Format the Rust code
	cargo fmt --all

gen: ## Write every generated file
	cargo run -q -p xtask -- gen
	SPAWNPOINT_REWRITE=1 cargo test -q -p spawnpoint-server -p spawnpoint committed

tidy: ## House rules that clippy cannot see
	cargo run -q -p xtask -- tidy

check: lint tidy ## What CI checks besides the tests
	cargo run -q -p xtask -- gen --check

soak: ## Twenty minutes of real churn and a day of virtual time: what grows, and what is left over (MINUTES=20 HOURS=24)
	cargo build --release -p spawnpoint -p spice -p spawnpoint-bench
	target/release/spawnpoint-bench soak --minutes $(or $(MINUTES),20) $(ARGS)
	cd crates/dst && cargo run -q --profile simulation --features simulation -- --day $(or $(HOURS),24) --without crash
	cd crates/dst && cargo run -q --profile simulation --features simulation -- --day $(or $(HOURS),24)

install: ## Put the command and the bundled games into PREFIX/bin (default ~/.local)
	cargo build --release -p spawnpoint -p spice -p arena-tcp
	mkdir -p "$(PREFIX)/bin"
	install -m 755 target/release/spawnpoint target/release/spice target/release/arena-tcp "$(PREFIX)/bin/"
	@echo "installed spawnpoint, spice and arena-tcp into $(PREFIX)/bin"
	@case ":$$PATH:" in *":$(PREFIX)/bin:"*) ;; *) echo "add it to your PATH: export PATH=\"$(PREFIX)/bin:\$$PATH\"" ;; esac

clean-state: ## Forget this directory's games and records (.spawnpoint); nothing may run on it
	rm -rf .spawnpoint
