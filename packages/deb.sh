#!/bin/sh
# Builds the Debian package `kvass` into a directory, by default target/debian, with cargo-deb.
# Usage: packages/deb.sh [DIR]. KVASS_BIN=DIR: with the programs that are there; else they are built as install.sh does.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
to=${1:-$here/target/debian}
stage=$here/target/package

say() { printf '%s\n' "$*"; }

# 77: it cannot be built here.
if ! cargo deb --version >/dev/null 2>&1; then
    if [ -n "${KVASS_NO_INSTALL:-}" ] || ! cargo install cargo-deb --locked --quiet; then
        say 'cargo-deb is not installed: cargo install cargo-deb --locked'
        exit 77
    fi
fi

rm -rf "$stage"
mkdir -p "$stage/bin" "$stage/man" "$stage/completions" "$to"
bin=${KVASS_BIN:-}
if [ -z "$bin" ]; then
    # The units that it places are not wanted, so they go where nobody looks.
    XDG_CONFIG_HOME=$stage/config "$here/install.sh" --prefix "$stage/built" >&2
    bin=$stage/built/bin
fi
cp "$bin/kvass" "$bin/kvassd" "$stage/bin/"

# What the programs write themselves.
"$bin/kvass" man "$stage/man"
gzip -9n "$stage/man"/*.1
for shell in bash zsh fish; do "$bin/kvass" completions "$shell" >"$stage/completions/$shell"; done

# What others ask to be told of their parts.
"$here/packages/licences.sh" >"$stage/licences"
gzip -9n "$stage/licences"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$here/Cargo.toml")
date=$(git -C "$here" log -1 --format=%cD 2>/dev/null) || date=$(date -R)
cat >"$stage/changelog" <<END
kvass ($version) unstable; urgency=medium

  * See /usr/share/doc/kvass/CHANGELOG.md.

 -- the kvass developers <kvass@localhost>  $date
END

cd "$here"
cargo deb --quiet --no-build --no-strip -p kvass-cli --deb-version "$version" --output "$to"
say "Built $(echo "$to/kvass_${version}"_*.deb)"
