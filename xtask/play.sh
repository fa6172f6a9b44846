#!/bin/sh
# make play: builds the command and the bundled games, then starts them. Says how long the first time took, from the clone on.
set -eu
cd "$(dirname "$0")/.."

now_ms() { echo "$(date +%s)000"; }
started=$(now_ms)
if ! command -v cargo >/dev/null 2>&1; then
    echo "Rust is missing: install it from https://rustup.rs and type make play again." >&2
    exit 1
fi
bin=${CARGO_TARGET_DIR:-target}/debug
if [ ! -x "$bin/spawnpoint" ]; then
    # A first build right after the clone counts from the clone (where the file system knows when that was).
    cloned=$(stat -c %W .git 2>/dev/null || stat -f %B .git 2>/dev/null || echo 0)
    if [ "$cloned" -gt 0 ] && [ $(( $(date +%s) - cloned )) -lt 1800 ]; then
        started="${cloned}000"
    fi
    echo "first build: one to three minutes, once"
fi
cargo build -p spawnpoint -p spice -p arena-tcp
SPAWNPOINT_CLONE_STARTED=$started
export SPAWNPOINT_CLONE_STARTED
exec "$bin/spawnpoint" up "$@"
