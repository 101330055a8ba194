#!/bin/sh
# Writes what is linked into the programs, and the text of each licence, once: most ask for it to go with a program.
# Usage: packages/licences.sh >FILE. Needs the sources, which cargo has fetched once it has built the programs.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Name, version and licence of each; those of this workspace have a path behind them.
cargo tree --quiet --locked -p kvassd -p kvass-cli -e normal,no-proc-macro --prefix none -f '{p}|{l}' |
    sed 's/ (\*)$//' | grep -v '^$' | grep -v '(/' | sort -u >"$work/crates"
# Only those of this platform: cargo would fetch the sources of all the others, which nothing here needs.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo metadata --quiet --locked --format-version 1 --filter-platform "$host" | grep -o '"manifest_path":"[^"]*/Cargo.toml"' |
    sed 's/^"manifest_path":"//; s|/Cargo.toml"$||' >"$work/directories"

# The texts of a crate. Of those that may be chosen from, the shortest is enough.
texts() {
    for text in "$1"/LICEN[CS]E* "$1"/COPYING* "$1"/NOTICE* "$1"/COPYRIGHT*; do
        [ -f "$text" ] || continue
        case "$2,$text" in
        *MIT*,*[Aa][Pp][Aa][Cc][Hh][Ee]*) ;;
        *) printf '%s\n' "$text" ;;
        esac
    done
}

mkdir "$work/texts"
echo 'Programs of this package contain the following crates, each under its licence, unchanged; their sources are on crates.io.'
echo
while IFS='|' read -r crate licence; do
    name=$(echo "$crate" | sed 's/ v/-/; s/ .*//')
    directory=$(grep "/$name\$" "$work/directories" | head -n 1)
    [ -n "$directory" ] || { echo "licences: the sources of $name are not here" >&2 && exit 1; }
    echo "$name: $licence"
    texts "$directory" "$licence" | while read -r text; do
        sum=$(tr -s '[:space:]' ' ' <"$text" | cksum | tr ' ' -)
        cp "$text" "$work/texts/$sum"
        echo "$name" >>"$work/texts/$sum.of"
    done
done <"$work/crates"
for of in "$work/texts"/*.of; do
    printf '\n== %s\n\n' "$(sort -u "$of" | paste -sd ' ' -)"
    cat "${of%.of}"
done
