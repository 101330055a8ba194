#!/usr/bin/env bash
# A server behind a real nginx with the configuration of docs/operations.md, whose time limits are shortened to little
# more than the 25 s after which a silent session says something: devices sync through it, a large value, a session
# that is silent for longer than the limits, nginx reloaded and restarted, kvassd away; plain requests beside them.
# Usage: proof/nginx.sh [-q] [MIB]: the size of the large value, 300 by default, 32 with -q.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
for tool in nginx openssl; do
    command -v "$tool" >/dev/null || skip "needs $tool"
done
mib=300
if [ "${1:-}" = -q ]; then
    mib=32
    shift
fi
prove "${1:-$mib}"
