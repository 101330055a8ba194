#!/usr/bin/env bash
# The Debian package: what is in it, installed into a root of its own, used, removed, purged; nothing is left but data.
# Usage: proof/package.sh [FILE.deb]; without FILE it is built of the programs in KVASS_BIN.
# The Rust that is installed stays where it is, though HOME is replaced.
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v dpkg-deb >/dev/null || skip 'needs dpkg'

failed=0
fail() {
    echo "FAIL: $*" >&2
    failed=1
}

package=${1:-}
if [ -z "$package" ]; then
    built=0
    # cargo-deb takes minutes to build, so it is used only where it is.
    KVASS_NO_INSTALL=yes "$proof_home/../packages/deb.sh" "$KVASS_WORK/built" >"$KVASS_WORK/words" 2>&1 || built=$?
    [ "$built" != 77 ] || skip "$(tail -n 1 "$KVASS_WORK/words")"
    [ "$built" = 0 ] || { cat "$KVASS_WORK/words" >&2 && exit 1; }
    package=$(echo "$KVASS_WORK"/built/kvass_*.deb)
fi

# What is in it.
dpkg-deb -c "$package" | awk '$2 ~ /^(0|root)\/(0|root)$/ { print $1, $6 }' >"$KVASS_WORK/content"
for wanted in \
    '-rwxr-xr-x ./usr/bin/kvass' '-rwxr-xr-x ./usr/bin/kvassd' \
    '-rw-r--r-- ./usr/lib/systemd/user/kvassd.service' '-rw-r--r-- ./usr/lib/systemd/user/kvassd.socket' \
    '-rw-r--r-- ./usr/lib/systemd/system/kvassd-server.service' '-rw-r--r-- ./usr/lib/sysusers.d/kvass.conf' \
    '-rw-r--r-- ./usr/share/man/man1/kvass.1.gz' '-rw-r--r-- ./usr/share/man/man1/kvass-set.1.gz' \
    '-rw-r--r-- ./usr/share/bash-completion/completions/kvass' '-rw-r--r-- ./usr/share/zsh/vendor-completions/_kvass' \
    '-rw-r--r-- ./usr/share/fish/vendor_completions.d/kvass.fish' \
    '-rw-r--r-- ./usr/share/doc/kvass/copyright' '-rw-r--r-- ./usr/share/doc/kvass/licences.gz' \
    '-rw-r--r-- ./usr/share/doc/kvass/docs/operations.md'; do
    grep -qxF -- "$wanted" "$KVASS_WORK/content" || fail "the package lacks $wanted"
done
dpkg-deb --fsys-tarfile "$package" | tar -xO ./usr/share/doc/kvass/copyright | grep -q MIT || fail 'no MIT in copyright'
dpkg-deb --fsys-tarfile "$package" | tar -xO ./usr/share/doc/kvass/licences.gz | gzip -d >"$KVASS_WORK/licences"
for wanted in 'sled-[0-9.]*: MIT' 'option-ext-[0-9.]*: MPL-2.0' '== .*option-ext-' 'Mozilla Public License' '== .*ring-'; do
    grep -q -- "$wanted" "$KVASS_WORK/licences" || fail "licences lack $wanted"
done
if dpkg-deb -c "$package" | grep -q 'wants/'; then fail 'a unit is enabled'; fi
if command -v lintian >/dev/null; then
    lintian --fail-on error --allow-root "$package" >&2 || fail 'lintian finds errors'
fi

# Installed into a root of its own, used, removed, purged.
root=$KVASS_WORK/root
mkdir -p "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/info"
: >"$root/var/lib/dpkg/status"
install_with() {
    dpkg --root="$root" --force-not-root --force-depends --force-script-chrootless --force-bad-path \
        --log=/dev/null "$@" >"$KVASS_WORK/words" 2>&1 || fail "dpkg $1: $(tail -n 3 "$KVASS_WORK/words")"
}
kvass() { KVASS_DB=$KVASS_WORK/data "$root/usr/bin/kvass" "$@"; }
install_with --install "$package"
kvass set greeting 'hello world'
[ "$(kvass get greeting)" = 'hello world' ] || fail 'get gives another value than was set'
[ "$(kvass --version)" = "kvass $(dpkg-deb -f "$package" Version | sed 's/-[0-9]*$//')" ] || fail 'the versions differ'
install_with --install "$package"
[ "$(kvass get greeting)" = 'hello world' ] || fail 'an upgrade changes a value'
kvass daemon stop >/dev/null
if command -v systemd-analyze >/dev/null; then
    "$PYTHON" - "$root" <<'END' || fail 'a unit names another program than the package has'
import os, re, sys
for unit in ("user/kvassd.service", "system/kvassd-server.service"):
    text = open(f"{sys.argv[1]}/usr/lib/systemd/{unit}").read()
    program = re.search(r"^ExecStart=(\S+)", text, re.M)[1]
    assert os.access(sys.argv[1] + program, os.X_OK), program
END
fi
install_with --remove kvass
install_with --purge kvass
left=$(cd "$root" && find . -mindepth 1 -not -path './var' -not -path './var/lib*' | head)
[ -z "$left" ] || fail "a purge leaves behind: $left"
[ -e "$KVASS_WORK/data/key" ] || fail 'a purge takes data away'

# The scripts where systemd runs, with programs that only say how they are called.
mkdir "$KVASS_WORK/said"
for program in systemctl systemd-sysusers; do
    printf '#!/bin/sh\necho "%s $*" >>"%s"\n' "$program" "$KVASS_WORK/said/words" >"$KVASS_WORK/said/$program"
    chmod +x "$KVASS_WORK/said/$program"
done
dpkg-deb -e "$package" "$KVASS_WORK/control"
said() {
    : >"$KVASS_WORK/said/words"
    sed "s|/run/systemd/system|$KVASS_WORK/said|" "$KVASS_WORK/control/$1" |
        DPKG_ROOT='' PATH=$KVASS_WORK/said:$PATH sh -s "$2"
    paste -sd , "$KVASS_WORK/said/words"
}
is_said() { [ "$(said "$1" "$2")" = "$3" ] || fail "$1 $2 does not do: $3"; }
is_said postinst configure \
    'systemd-sysusers kvass.conf,systemctl daemon-reload,systemctl try-restart kvassd-server.service'
is_said prerm remove 'systemctl disable --now kvassd-server.service'
is_said prerm upgrade ''
is_said postrm remove 'systemctl daemon-reload'
is_said postrm purge ''

[ "$failed" = 0 ] || exit 1
echo "package: ok: $(wc -c <"$package") bytes, $(grep -c '^-' "$KVASS_WORK/content") files"
