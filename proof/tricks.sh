#!/usr/bin/env bash
# Tricks at the server's port: paths, hosts and lengths that say two things, names that would be headers, requests that
# unpack or nest without end, peers that are slow, links that are guessed, and more downloads than there may be.
# Usage: proof/tricks.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prove "$@"
