#!/bin/sh
# Builds kvass from this clone and installs it for one user. `./install.sh --help` says more.
set -eu
# Nobody else may write what is run, whatever the mask was.
umask 022

usage() {
    cat <<'END'
usage: ./install.sh [--enable] [--prefix DIR]
       ./install.sh --uninstall [--prefix DIR]

Builds the client `kvass` and the daemon `kvassd` and puts them into
~/.local/bin, or DIR/bin. Running it again upgrades: each program is
replaced in one step, and a daemon that runs is restarted. In the end it
sets and gets a value in a temporary data directory; your store is not
touched.

It also places the files by which the daemon can start at login: units of
systemd, on macOS an agent of launchd. Without them the first command
starts it.

  --prefix DIR   install into DIR/bin
  --enable       start the daemon now, and from now on at login
  --uninstall    stop the daemon, remove both programs and what starts them;
                 your data stays
  --help         this text

It needs Rust (cargo) and a C compiler for linking.
END
}

say() { printf '%s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf 'hint: %s\n' "$line" >&2; done
    exit 1
}

prefix=
enable=
uninstall=
while [ $# -gt 0 ]; do
    case $1 in
    --prefix)
        [ $# -ge 2 ] || die '--prefix needs a directory'
        prefix=$2
        shift
        ;;
    --prefix=*) prefix=${1#--prefix=} ;;
    --enable) enable=yes ;;
    --uninstall) uninstall=yes ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift
done

if [ -z "$prefix" ]; then
    [ -n "${HOME:-}" ] || die 'HOME is not set' 'say where to install: ./install.sh --prefix DIR'
    prefix=$HOME/.local
fi
case $prefix in /*) ;; *) prefix=$(pwd)/$prefix ;; esac
bin=$prefix/bin
here=$(cd "$(dirname "$0")" && pwd)

# Where the user's store is: what the programs do, said again in shell.
if [ -n "${KVASS_DB:-}" ]; then
    data=$KVASS_DB
elif [ "$(uname -s)" = Darwin ]; then
    data=${HOME:-}/Library/Application\ Support/kvass
else
    case ${XDG_DATA_HOME:-} in
    /*) data=$XDG_DATA_HOME/kvass ;;
    *) data=${HOME:-}/.local/share/kvass ;;
    esac
fi

# Whether a daemon that was installed here serves that store. The lock file names its process; asking `kvass` would
# start one.
daemon_runs() {
    [ -S "$data/kvassd.sock" ] && [ -r "$data/lock" ] || return 1
    process=$(sed 's/[^0-9].*//;1q' "$data/lock")
    [ -n "$process" ] && kill -0 "$process" 2>/dev/null || return 1
    program=$(readlink "/proc/$process/exe" 2>/dev/null) || return 0
    case $program in "$(cd "$bin" && pwd -P)/"*) ;; *) return 1 ;; esac
}

# What starts the daemon at login.
units=${XDG_CONFIG_HOME:-${HOME:-}/.config}/systemd/user
agent=${HOME:-}/Library/LaunchAgents/kvass.kvassd.plist

# Writes a unit for the programs of this installation. systemd would expand % and $, and takes spaces only in quotes.
fill_unit() {
    BIN=$bin/kvassd DATA=$data HOME_DATA=${HOME:-}/.local/share/kvass awk '
        function put(line, what, path) {
            at = index(line, what)
            return at == 0 ? line : substr(line, 1, at - 1) path substr(line, at + length(what))
        }
        function word(path) {
            if (path !~ /[^A-Za-z0-9_.,:+@%\/-]/) return path
            gsub(/["\\]/, "\\\\&", path)
            gsub(/\$/, "$$", path)
            return "\"" path "\""
        }
        BEGIN {
            bin = ENVIRON["BIN"]
            data = ENVIRON["DATA"] == ENVIRON["HOME_DATA"] ? "%h/.local/share/kvass" : ENVIRON["DATA"]
            gsub(/%/, "%%", bin)
            if (data !~ /^%h/) gsub(/%/, "%%", data)
        }
        /^#/ { print; next }
        /^ExecStart=/ { print put(put($0, "%h/.local/share/kvass", word(data)), "/usr/bin/kvassd", word(bin)); next }
        { print put($0, "%h/.local/share/kvass", data) }
    ' "$here/systemd/$1"
}

# Writes the agent for the programs of this installation, as XML.
fill_agent() {
    BIN=$bin DATA=$data awk '
        function put(line, what, path) {
            at = index(line, what)
            return at == 0 ? line : substr(line, 1, at - 1) path substr(line, at + length(what))
        }
        function text(path) {
            gsub(/&/, "\\&amp;", path)
            gsub(/</, "\\&lt;", path)
            return path
        }
        { print put(put($0, "@BIN@", text(ENVIRON["BIN"])), "@DATA@", text(ENVIRON["DATA"])) }
    ' "$here/launchd/kvass.kvassd.plist"
}

# Whether a unit or agent was placed, and starts the daemon of this prefix.
is_ours() { [ -f "$1" ] && grep -qF "$bin/kvassd" "$1"; }

systemctl_user() { command -v systemctl >/dev/null 2>&1 && systemctl --user "$@" >/dev/null 2>&1; }

# Places what starts the daemon at login. No failure of it is one of the installation.
place_services() {
    if [ "$(uname -s)" = Darwin ]; then
        if mkdir -p "${agent%/*}" && fill_agent >"$agent"; then return 0; fi
        say "The agent could not be written: $agent"
        return 1
    fi
    if ! command -v systemctl >/dev/null 2>&1; then
        say 'There is no systemd here: the first command starts the daemon.'
        return 1
    fi
    if mkdir -p "$units" && fill_unit kvassd.service >"$units/kvassd.service" &&
        fill_unit kvassd.socket >"$units/kvassd.socket"; then
        systemctl_user daemon-reload || true
        return 0
    fi
    say "The units could not be written: $units"
    return 1
}

enable_services() {
    if [ "$(uname -s)" = Darwin ]; then
        launchctl bootout "gui/$(id -u)/kvass.kvassd" 2>/dev/null || true
        launchctl bootstrap "gui/$(id -u)" "$agent"
    else
        systemctl --user enable --now kvassd.socket kvassd.service
    fi
}

is_enabled() {
    if [ "$(uname -s)" = Darwin ]; then
        launchctl print "gui/$(id -u)/kvass.kvassd" >/dev/null 2>&1
    else
        systemctl_user is-enabled kvassd.service
    fi
}

how_to_enable() {
    if [ "$(uname -s)" = Darwin ]; then
        say "To start the daemon at login:  launchctl bootstrap gui/\$(id -u) '$agent'"
    else
        say 'To start the daemon at login:  systemctl --user enable --now kvassd.socket kvassd.service'
    fi
}

remove_services() {
    if [ "$(uname -s)" = Darwin ]; then
        is_ours "$agent" || return 0
        launchctl bootout "gui/$(id -u)/kvass.kvassd" 2>/dev/null || true
        rm -f "$agent"
    else
        is_ours "$units/kvassd.service" || return 0
        # The socket first: it would start the daemon again.
        systemctl_user disable --now kvassd.socket kvassd.service || true
        rm -f "$units/kvassd.service" "$units/kvassd.socket"
        systemctl_user daemon-reload || true
    fi
    say 'Removed what starts the daemon at login.'
}

if [ -n "$uninstall" ]; then
    [ -e "$bin/kvass" ] || [ -e "$bin/kvassd" ] || die "there is no kvass in $bin" 'it may be elsewhere: --prefix DIR'
    remove_services
    if daemon_runs && [ -x "$bin/kvass" ]; then
        "$bin/kvass" daemon stop >/dev/null || say "The daemon could not be stopped; end process $process yourself."
    fi
    rm -f "$bin/kvass" "$bin/kvassd"
    say "Removed $bin/kvass and $bin/kvassd."
    if [ -e "$data" ]; then
        say "Your data stays, with its key, in $data"
        say "To remove it for good: rm -r '$data'"
    fi
    exit 0
fi

# What building needs.
cargo=$(command -v cargo) || {
    cargo=${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo
    [ -x "$cargo" ] || die 'cargo is missing: Rust is needed to build kvass' \
        'install Rust from your distribution or with rustup, and open a new shell'
    PATH=$(dirname "$cargo"):$PATH
    export PATH
}
compiler=
for name in cc gcc clang; do
    if command -v "$name" >/dev/null 2>&1; then
        compiler=$name
        break
    fi
done
[ -n "$compiler" ] || die 'no C compiler found: Rust needs one for linking' \
    'Debian, Ubuntu: apt install gcc libc6-dev; Fedora: dnf install gcc; macOS: xcode-select --install'

wanted=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' "$here/Cargo.toml")
found=$(cd "$here" && rustc --version | sed 's/^rustc \([0-9]*\.[0-9]*\).*/\1/')
if [ -n "$wanted" ]; then
    printf '%s %s\n' "$found" "$wanted" | awk '{
        split($1, have, "."); split($2, want, ".")
        exit !(have[1] > want[1] || (have[1] == want[1] && have[2] >= want[2]))
    }' || die "Rust $found is too old: kvass needs $wanted" 'with rustup: rustup update stable'
fi

host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
x86_64-*-linux-* | aarch64-*-linux-* | riscv64*-linux-*) ;;
*-linux-*) die "$host is not supported: on Linux the daemon needs a 64-bit x86, ARM or RISC-V processor" ;;
esac

# Builds. What is set for other projects must not change where the programs end up.
unset CARGO_BUILD_TARGET
target=${CARGO_TARGET_DIR:-$here/target}
case $target in /*) ;; *) target=$(pwd)/$target ;; esac
temporary=$(mktemp -d)
check=
clean_up() {
    status=$?
    trap - EXIT INT TERM HUP
    if [ -n "$check" ]; then
        KVASS_DB=$check "$bin/kvass" daemon stop >/dev/null 2>&1 || true
        rm -rf "$check"
    fi
    rm -rf "$temporary"
    rm -f "$bin/.kvass.$$" "$bin/.kvassd.$$"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

build() {
    if ! (cd "$here" && "$cargo" build --locked --quiet --target-dir "$target" "$@") 2>"$temporary/words"; then
        cat "$temporary/words" >&2
        return 1
    fi
}

# A client without shared libraries starts in two thirds of the time. Some systems lack the static C library for it.
static=
case $host in
x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu)
    printf 'int main(void) { return 0; }\n' >"$temporary/probe.c"
    if "$compiler" -static -o "$temporary/probe" "$temporary/probe.c" >/dev/null 2>&1; then
        static=yes
    else
        say 'The static C library is not installed; the client is linked dynamically and starts a little slower.'
    fi
    ;;
esac

say 'Building the client … (the first time this takes some minutes)'
client=
if [ -n "$static" ]; then
    # Only with the target named do these flags stay away from build scripts and macros.
    if RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static -C relocation-model=static" \
        build --profile client -p kvass-cli --target "$host"; then
        client=$target/$host/client/kvass
    else
        say 'The client could not be linked statically; trying without.'
    fi
fi
if [ -z "$client" ]; then
    build --profile client -p kvass-cli || die 'the client could not be built'
    client=$target/client/kvass
fi
say 'Building the daemon …'
build --release -p kvassd || die 'the daemon could not be built'

# Puts a program in place in one step, so that one that runs, or is started right now, is whole.
place() {
    cp "$1" "$bin/.$2.$$"
    chmod 755 "$bin/.$2.$$"
    mv -f "$bin/.$2.$$" "$bin/$2"
}
mkdir -p "$bin" || die "cannot make $bin"
place "$target/release/kvassd" kvassd
place "$client" kvass
say "Installed kvass and kvassd in $bin"

if daemon_runs; then
    if "$bin/kvass" daemon restart >/dev/null; then
        say "Restarted the daemon of $data"
    else
        say 'The daemon that runs could not be restarted; it is still the old one until it is.'
    fi
fi

if place_services; then
    if [ -z "$enable" ]; then
        is_enabled || how_to_enable
    elif enable_services; then
        say 'The daemon runs, and starts at login from now on.'
        [ "$(uname -s)" = Darwin ] || say 'On a server, where nobody is logged in:  loginctl enable-linger'
    else
        say 'The daemon could not be started as a service; the first command starts it.'
        how_to_enable
    fi
elif [ -n "$enable" ]; then
    say 'Nothing was enabled.'
fi

# A real set and get, away from the user's store. A socket's path must be short, so a deep TMPDIR is of no use.
base=${TMPDIR:-/tmp}
[ "${#base}" -le 50 ] || base=/tmp
check=$(mktemp -d "$base/kvass-install.XXXXXX")
unset KVASS_SOCKET
printf 'hello\nworld \303\251\n\n' >"$temporary/in"
KVASS_DB=$check "$bin/kvass" set hello <"$temporary/in" || die 'the installed kvass cannot set a value'
KVASS_DB=$check "$bin/kvass" get hello >"$temporary/out" || die 'the installed kvass cannot get a value'
cmp -s "$temporary/in" "$temporary/out" || die 'the installed kvass gives back other bytes than it was given'
KVASS_DB=$check "$bin/kvass" daemon stop >/dev/null || die 'the installed daemon cannot be stopped'
rm -rf "$check"
check=
say 'Checked: a value was set and read back through the installed daemon (in a temporary directory, removed again).'

case :$PATH: in
*":$bin:"*)
    first=$(command -v kvass || true)
    if [ -n "$first" ] && [ "$first" != "$bin/kvass" ]; then
        say ''
        say "Another kvass comes first on your PATH: $first"
    fi
    say ''
    say 'Try it:  kvass set hello world && kvass get hello'
    ;;
*)
    # What is shown here is for the user's shell to expand.
    # shellcheck disable=SC2016,SC2088
    case ${SHELL:-} in
    */zsh) file='~/.zshrc' remote='~/.zshenv' ;;
    */fish) file='' remote='' ;;
    *) file='~/.profile' remote='the top of ~/.bashrc' ;;
    esac
    shown=$bin
    # shellcheck disable=SC2016
    case $bin in "${HOME:-/nowhere}"/*) shown='$HOME'${bin#"$HOME"} ;; esac
    say ''
    say "$bin is not on your PATH."
    if [ -n "$file" ]; then
        say "Add this line to $file, and open a new shell:"
        say ''
        say "    export PATH=\"$shown:\$PATH\""
        say ''
        say "\`ssh host kvass\` reads another file than a login does: for that, add the line to $remote as well."
    else
        say 'Run this once; it holds for ssh as well:'
        say ''
        say "    fish_add_path $bin"
    fi
    ;;
esac
