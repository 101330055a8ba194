#!/bin/sh
# Runs all tests: builds the programs that the command line's tests start, then unit, integration and doc tests.
# Arguments go to `cargo test`, as in: ./test.sh -p kvassd witness
set -eu
cd "$(dirname "$0")"
cargo build --locked --workspace
exec cargo test --locked --workspace "$@"
