#!/usr/bin/env bash
# Links in a real Chromium without a window: HTML, SVG, an image, a PDF, a video with seeking, a text with emoji, and the
# page of a link that can be opened only so often. What a shared document tries to do to others it must not be able to.
# Usage: proof/browser.sh [DIR]: screenshots go there, else nowhere. Needs Chromium, its driver, and ffmpeg.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || skip 'needs chromium'
command -v chromedriver >/dev/null || skip 'needs chromedriver'
command -v ffmpeg >/dev/null || skip 'needs ffmpeg'
export CHROMIUM=$chromium
shots=${1:-$KVASS_WORK/shots}
mkdir -p "$shots"
prove "$(cd "$shots" && pwd)"
