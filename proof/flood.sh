#!/usr/bin/env bash
# Strangers at the server's port: connections that say nothing, half of something, garbage, endless HTTP/2, lies about
# lengths, wrong keys and recordings, while devices sync. The server's memory stays small, and the devices notice
# nothing. Then many real devices at once, idle, and what each costs.
# Usage: proof/flood.sh [CONNECTIONS [MIB [DEVICES]]], 10000, 1024 and 1000 by default.
# KVASS_DEVICES names the program of kvassd/examples/devices.rs, else cargo builds it.
set -euo pipefail
if [ -z "${KVASS_DEVICES:-}" ] && command -v cargo >/dev/null; then
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    cargo build --quiet --locked --release --manifest-path "$root/Cargo.toml" -p kvassd --example devices
    KVASS_DEVICES=$root/target/release/examples/devices
fi
export KVASS_DEVICES=${KVASS_DEVICES:-}
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ -n "$KVASS_DEVICES" ] || skip 'needs cargo, or KVASS_DEVICES'
prove "${1:-10000}" "${2:-1024}" "${3:-1000}"
