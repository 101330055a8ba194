#!/usr/bin/env bash
# A server and three devices with the installed programs, as the first document of the project shows it: paired by
# `config key` and `config remote`, `set` here and `get` there, both ways, a third device, time apart, kill -9 between.
# Usage: proof/sync.sh [KILLS], 5 by default.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prove "${1:-5}"
