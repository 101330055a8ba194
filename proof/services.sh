#!/usr/bin/env bash
# The unit files: verified, their exposure, and their filters put on real daemons that set, get, sync and stop; sockets
# and watch of a service manager, real and played; kill -9 and handing over. launchd's keys, one by one.
# Usage: proof/services.sh. KVASS_CONFINED names the program of kvassd/examples/confined.rs, for the filters.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
KVASS_HOME=$(cd "$proof_home/.." && pwd)
export KVASS_HOME
prove "$@"
