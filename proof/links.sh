#!/usr/bin/env bash
# Links with curl: a download that is cut again and again and resumed, ranges, several at once, memory and descriptors
# of the server, and links with a number of reads beside kill -9, which never give one more than they may.
# Usage: proof/links.sh [MIB [KILLS]], 1024 and 20 by default.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v curl >/dev/null || skip 'needs curl'
mib=${1:-1024}
[ "$(free_mib)" -gt $((mib * 5 + 512)) ] || skip "needs $((mib * 5 + 512)) MiB free under $KVASS_WORK (PROOF_DIR=DIR)"
prove "$mib" "${2:-20}"
