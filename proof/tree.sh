#!/usr/bin/env bash
# Every file of a real tree goes in from standard input and comes out byte for byte, also after kill -9 and a restart.
# Usage: proof/tree.sh [FILES [DIR…]]: at most FILES of them (the largest ones and an even sample), default all of
# /usr/bin and /usr/share/doc.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
files=${1:-0}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- /usr/bin /usr/share/doc
prove "$files" "$@"
