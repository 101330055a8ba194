#!/usr/bin/env bash
# A server and five devices in mixed use for long: values of all sizes set, replaced, removed, imported, expiring, linked,
# opened, watched and waited for, while devices are killed, stopped, away for a while, and all get another key now and then.
# What is stored is bounded, so memory, descriptors, threads, files and space must not grow; in the end all stores are equal.
# Usage: proof/soak.sh [MINUTES [DIR]], 60 by default. Samples go to DIR/samples.tsv and plots to DIR/*.svg. Growth is
# judged from 10 minutes on. SEED=N repeats choices; BLIND=1 gives the server the server key alone.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prove "${1:-60}" "${2:-$KVASS_WORK}"
