#!/bin/sh
# Runs all tests: builds the programs that the command line's tests start, then unit, integration and doc tests.
# Arguments go to `cargo test`, as in: ./test.sh -p kvassd witness
# This kvassd has the points of proof/failpoints.sh, which do nothing unless they are asked to, so it is built but once.
set -eu
cd "$(dirname "$0")"
cargo build --locked --workspace --features kvassd/failpoints
exec cargo test --locked --workspace --features kvassd/failpoints "$@"
