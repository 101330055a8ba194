#!/usr/bin/env bash
# Faults of sync, one after the other: other keys, clocks hours off, a day asleep, a disk that is full in the middle of a
# large value, an address that vanishes under a connection.
# Usage: proof/faults.sh. Parts need root (a small tmpfs, network namespaces) or libfaketime, and are skipped aloud.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prove "$@"
