#!/usr/bin/env bash
# A server behind a real nginx with TLS, as README.md has it, with an authority of its own: there and back, a large
# value, nginx restarted; refused in words without the authority, and where nginx is but a web server.
# Usage: proof/https.sh [MIB], 64 by default: the size of the large value.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
for tool in nginx openssl; do
    command -v "$tool" >/dev/null || skip "needs $tool"
done
prove "${1:-64}"
