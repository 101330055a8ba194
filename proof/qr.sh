#!/usr/bin/env bash
# QR codes as people see them: on a real terminal, dark, light and with colours of its own, as text, SVG and PNG. What a
# reader makes of the picture must be the link, or the pairing line.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for tool in Xvfb xterm zbarimg rsvg-convert; do
    command -v "$tool" >/dev/null || skip "needs $tool"
done
prove
