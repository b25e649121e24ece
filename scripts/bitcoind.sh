#!/usr/bin/env bash
# Prints the absolute path of a bitcoind, and nothing else, on stdout; makes one if there is none.
# Everything that it prepares lives in a temporary folder of the cache and gets its final name
# with one rename: whoever sees a bitcoind in the cache sees a whole one that has started once.
set -euo pipefail

readonly OLDEST_MAJOR=28

readonly RELEASE=30.2
release_sha256() { # of bitcoin-30.2-<triple>.tar.gz, from the signed SHA256SUMS of that release
    case $1 in
        x86_64-linux-gnu)    echo 6aa7bb4feb699c4c6262dd23e4004191f6df7f373b5d5978b5bcdd4bb72f75d8 ;;
        aarch64-linux-gnu)   echo 73e76c14edc79808a0511c744d102ffbb494807ee90cbcba176568243254b532 ;;
        arm64-apple-darwin)  echo c2ecab62891de22228043815cb6211549a32272be3d5d052ff19847d3420bd10 ;;
        x86_64-apple-darwin) echo 99d5cee9b9c37be506396c30837a4b98e320bfea71c474d6120a7e8eb6075c7b ;;
    esac
}

# The Bitcoin Core source that comes with a crate, so that cargo's registry is enough to get it.
readonly CRATE=libbitcoinkernel-sys
readonly CRATE_VERSION=0.4.1
readonly CRATE_SHA256=345d18a1ce19a1becfcaaa066e3a60e9c7813ef5c23ea8c20704ca4ba1a46339
readonly CORE_IN_CRATE=31.99
# The crate leaves out the wallet, ZMQ and the AS map. Sortie needs none of them: its wallet is BDK.
readonly CMAKE_FLAGS=(
    -DCMAKE_BUILD_TYPE=Release -DBUILD_DAEMON=ON -DBUILD_CLI=ON
    -DENABLE_WALLET=OFF -DENABLE_IPC=OFF -DWITH_ZMQ=OFF -DWITH_EMBEDDED_ASMAP=OFF
    -DBUILD_TESTS=OFF -DBUILD_BENCH=OFF -DBUILD_TX=OFF -DBUILD_UTIL=OFF
    -DBUILD_BITCOIN_BIN=OFF -DBUILD_FUZZ_BINARY=OFF -DENABLE_EXTERNAL_SIGNER=OFF
)
readonly BUILD_CORE_MINUTES=20

cached_by() { # the folder in the cache for a way of making a bitcoind; a new pin is a new folder
    case $1 in
        release) echo "$cache/bitcoind-$RELEASE" ;;
        source) echo "$cache/bitcoind-$CORE_IN_CRATE-$CRATE_VERSION" ;;
    esac
}

usage() {
    cat <<END
Usage: scripts/bitcoind.sh [--help]

Prints the absolute path of a bitcoind. All else that it says goes to stderr. It takes the first of:
  1. \$BITCOIND
  2. bitcoind in PATH, if it is version $OLDEST_MAJOR or newer
  3. one that it made before, in the cache
  4. the official release $RELEASE, checked against a SHA-256 sum pinned in this script
  5. a build of Bitcoin Core $CORE_IN_CRATE from the source in the crate $CRATE $CRATE_VERSION
     (about $((BUILD_CORE_MINUTES / 2)) minutes on 2 cores; needs cargo, cmake, a C++20 compiler and Boost headers,
     which it installs with apt-get where it may)
4 and 5 put bitcoind and bitcoin-cli into <cache>/bitcoind-<version>/bin.

Environment:
  BITCOIND                the bitcoind to use
  SORTIE_CACHE            the cache (default: \${XDG_CACHE_HOME:-~/.cache}/sortie)
  SORTIE_BITCOIND_FROM    release or source: only this way, cached or made now; skips 1 and 2
  SORTIE_BITCOIN_MIRROR   where releases are (default: https://bitcoincore.org/bin)
  SORTIE_BITCOIND_SHA256  the sum to demand instead of the pinned one (tests, mirrors of own builds)
  CMAKE_BUILD_PARALLEL_LEVEL  jobs of the build (default: one for each core)

Exit codes: 0 found or made, 1 failed, 2 bad usage or bad \$BITCOIND.
END
}

say() { printf 'bitcoind.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
bad_usage() { say "$*"; exit 2; }

# --- running things, and leaving nothing behind -------------------------------------------------

cache='' # absolute path
work=''  # our temporary folder in it

# Runs a command in the background, in a process group of its own. Bash runs traps only between
# commands, so a long one in the foreground would outlive the signal that is meant to end it.
# Neither the caller's stdout (3) nor the lock (9) is handed down.
start() {
    set -m
    "$@" </dev/null 3>&- 9>&- &
    set +m
}

run() { start "$@"; wait "$!"; }

clean_up() {
    local group
    for group in $(jobs -p); do
        kill -TERM -- "-$group" 2>/dev/null || continue
        for _ in {1..50}; do
            kill -0 -- "-$group" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$group" 2>/dev/null || :
    done
    [[ -z $work ]] || rm -rf "$work" || :
}

on_signal() {
    trap '' HUP INT TERM
    clean_up
    trap - EXIT HUP INT TERM
    kill -s "$1" "$$"
}

# One run at a time makes a bitcoind. Without flock several may, and the first to finish wins.
lock_cache() {
    local locked='' folder pid
    mkdir -p "$cache" 2>/dev/null && [[ -w $cache ]] || die "cannot write to the cache $cache (SORTIE_CACHE chooses another)"
    if type -P flock >/dev/null; then
        exec 9>"$cache/bitcoind.lock"
        if flock -n 9; then
            locked=yes
        else
            say "another run is making a bitcoind in $cache; waiting for it"
            # Start would close 9 for the command; under another number it is the same lock.
            if run flock 8 8>&9; then locked=yes; else say "cannot lock $cache; going on without"; fi
        fi
    fi
    # Sweep away what runs left that were killed with no chance to clean up.
    for folder in "$cache"/.making-*; do
        pid=${folder##*/.making-}
        [[ -n $locked ]] || ! kill -0 "${pid%%.*}" 2>/dev/null || continue
        rm -rf "$folder"
    done
}

# --- 1 to 3: what is there already --------------------------------------------------------------

# Prints the version, such as 30.2.0, of a bitcoind that starts.
version_of() {
    local out limit=()
    type -P timeout >/dev/null && limit=(timeout 20)
    out=$(${limit[@]+"${limit[@]}"} "$1" -version 2>/dev/null </dev/null 3>&- 9>&-) || return 1
    [[ $out =~ ^Bitcoin\ [^$'\n']*version\ v([0-9]+(\.[0-9]+)*) ]] || return 1
    echo "${BASH_REMATCH[1]}"
}

absolute() {
    case $1 in
        /*) echo "$1" ;;
        *) echo "$PWD/${1#./}" ;;
    esac
}

answer() { printf '%s\n' "$1" >&3; exit 0; }

from_variable() {
    local version
    [[ -f $BITCOIND && -x $BITCOIND ]] || bad_usage "BITCOIND=$BITCOIND is not an executable file"
    version=$(version_of "$BITCOIND") || bad_usage "BITCOIND=$BITCOIND does not answer -version as a bitcoind does"
    ((${version%%.*} >= OLDEST_MAJOR)) || say "BITCOIND=$BITCOIND is $version; Sortie is tested with $OLDEST_MAJOR and newer"
    answer "$(absolute "$BITCOIND")"
}

from_path() {
    local program version
    program=$(type -P bitcoind) || return 0
    if ! version=$(version_of "$program"); then
        say "$program does not start; going on without it"
    elif ((${version%%.*} < OLDEST_MAJOR)); then
        say "$program is too old: $version, need $OLDEST_MAJOR or newer; going on without it"
    else
        answer "$(absolute "$program")"
    fi
}

from_cache() {
    local way program
    for way in $ways; do
        program=$(cached_by "$way")/bin/bitcoind
        [[ ! -x $program ]] || ! version_of "$program" >/dev/null || answer "$program"
    done
}

# --- 4: the official release --------------------------------------------------------------------

release_triple() {
    case $(uname -s)-$(uname -m) in
        Linux-x86_64) echo x86_64-linux-gnu ;;
        Linux-aarch64 | Linux-arm64) echo aarch64-linux-gnu ;;
        Darwin-arm64) echo arm64-apple-darwin ;;
        Darwin-x86_64) echo x86_64-apple-darwin ;;
        *) return 1 ;;
    esac
}

download() {
    local url=$1 file=$2 verbosity
    if type -P curl >/dev/null; then
        verbosity=--silent
        [[ ! -t 2 ]] || verbosity=--progress-bar
        run curl --fail --location --show-error "$verbosity" --connect-timeout 10 \
            --speed-limit 1000 --speed-time 30 --output "$file" "$url"
    elif type -P wget >/dev/null; then
        run wget --no-verbose --tries=1 --dns-timeout=10 --connect-timeout=10 --read-timeout=30 \
            --output-document="$file" "$url"
    else
        say "neither curl nor wget is in PATH"
        return 1
    fi
}

sha256_of() {
    local sum
    if type -P sha256sum >/dev/null; then sum=$(sha256sum <"$1"); else sum=$(shasum -a 256 <"$1"); fi
    echo "${sum%% *}"
}

make_release() {
    local triple url expected got tarball=$work/release.tar.gz bin=bitcoin-$RELEASE/bin
    triple=$(release_triple) || { say "no release is pinned for $(uname -s) on $(uname -m)"; return 1; }
    expected=${SORTIE_BITCOIND_SHA256:-$(release_sha256 "$triple")}
    url=${SORTIE_BITCOIN_MIRROR:-https://bitcoincore.org/bin}/bitcoin-core-$RELEASE/bitcoin-$RELEASE-$triple.tar.gz
    say "downloading Bitcoin Core $RELEASE (about 50 MB): $url"
    if ! download "$url" "$tarball"; then
        rm -f "$tarball"
        say "the download failed"
        return 1
    fi
    got=$(sha256_of "$tarball") || return 1
    if [[ $got != "$expected" ]]; then
        rm -f "$tarball"
        say "WRONG CHECKSUM: deleted what came from $url (SHA-256 expected $expected, got $got)"
        return 1
    fi
    tar -xzf "$tarball" -C "$work" --no-same-owner "$bin/bitcoind" "$bin/bitcoin-cli" || return 1
    stage release "$work/$bin/bitcoind" "$work/$bin/bitcoin-cli"
}

# --- 5: from source -----------------------------------------------------------------------------

source_dir='' cxx='' boost_include=''

# Sets source_dir. The crates that cargo has already are tried first: that works offline.
fetch_source() {
    local manifest=$work/fetch/Cargo.toml metadata
    type -P cargo >/dev/null || die "cargo is not in PATH: install Rust (https://rustup.rs) or set BITCOIND=/path/to/bitcoind"
    mkdir -p "$work/fetch/src"
    : >"$work/fetch/src/lib.rs"
    cat >"$manifest" <<END
[package]
name = "fetch"
version = "0.0.0"
edition = "2021"
[dependencies]
$CRATE = "=$CRATE_VERSION"
[workspace]
END
    say "getting the source of Bitcoin Core $CORE_IN_CRATE: crate $CRATE $CRATE_VERSION"
    run cargo fetch --quiet --offline --manifest-path "$manifest" 2>/dev/null ||
        run cargo fetch --manifest-path "$manifest" ||
        die "cargo could not fetch the crate $CRATE $CRATE_VERSION: get online, or set BITCOIND=/path/to/bitcoind (version $OLDEST_MAJOR or newer)"
    # Cargo has compared the crate with the sum in the lock file; here that sum with ours.
    grep -q "^checksum = \"$CRATE_SHA256\"$" "$work/fetch/Cargo.lock" ||
        die "WRONG CHECKSUM: the crate $CRATE $CRATE_VERSION of this registry is not the pinned one ($CRATE_SHA256)"
    run cargo metadata --format-version 1 --offline --manifest-path "$manifest" >"$work/fetch/metadata.json" ||
        die "cargo metadata failed on the crate $CRATE $CRATE_VERSION"
    metadata=$(grep -o "\"manifest_path\":\"[^\"]*/${CRATE}[^\"]*/Cargo.toml\"" "$work/fetch/metadata.json") || :
    metadata=${metadata#*:\"}
    source_dir=${metadata%/Cargo.toml\"}/bitcoin
    [[ -f $source_dir/CMakeLists.txt ]] || die "the crate $CRATE $CRATE_VERSION has no Bitcoin Core source at $source_dir"
}

# Sets cxx to the first compiler that is new enough and can link a program.
find_compiler() {
    local candidate candidates
    [[ -n $(type -P "${CC:-cc}" gcc clang) ]] || return 1
    candidates=$(echo c++ g++ clang++ g++-{15,14,13,12,11} clang++-{21,20,19,18,17,16})
    for candidate in ${CXX:-$candidates}; do
        type -P "$candidate" >/dev/null || continue
        cxx=$candidate
        ! "$cxx" -std=c++20 -x c++ - -o "$work/probe" 2>/dev/null <<'END' || return 0
#if defined(__clang__) ? __clang_major__ < 16 : __GNUC__ < 11
#error too old
#endif
#include <source_location>
#include <variant>
template<class... Ts> struct Overloaded : Ts... { using Ts::operator()...; };
int main() {
    std::variant<int, double> v = 42;
    return std::visit(Overloaded{[](int) { return 0; }, [](double) { return 1; }}, v);
}
END
    done
    cxx=''
    return 1
}

find_boost() {
    boost_include=''
    ! type -P brew >/dev/null || boost_include=-I$(brew --prefix boost 2>/dev/null)/include
    "$cxx" -std=c++20 ${boost_include:+"$boost_include"} -fsyntax-only -x c++ - 2>/dev/null <<'END'
#include <boost/multi_index_container.hpp>
#include <boost/version.hpp>
#if BOOST_VERSION < 107400
#error too old
#endif
END
}

find_cmake() {
    local out
    out=$(cmake --version 2>/dev/null) || return 1
    [[ $out =~ version\ ([0-9]+)\.([0-9]+) ]] || return 1
    ((BASH_REMATCH[1] * 1000 + BASH_REMATCH[2] >= 3022))
}

missing='' packages=''

# Sets missing (for people) and packages (for apt-get).
find_tools() {
    missing='' packages=''
    find_cmake || { missing+=', cmake >= 3.22'; packages+=' cmake'; }
    type -P make >/dev/null || { missing+=', make'; packages+=' make'; }
    find_compiler || { missing+=', a C++20 compiler (g++ >= 11 or clang >= 16)'; packages+=' g++'; }
    # Without a compiler the headers cannot be tried; asking for them once too often does no harm.
    { [[ -n $cxx ]] && find_boost; } || { missing+=', Boost headers >= 1.74'; packages+=' libboost-dev'; }
    missing=${missing#, } packages=${packages# }
    [[ -z $missing ]]
}

apt() {
    run ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o DPkg::Lock::Timeout=300 "$@" >&2
}

ensure_tools() {
    local as_root=() hint
    find_tools && return
    hint="sudo apt-get install $packages"
    if type -P apt-get >/dev/null; then
        if [[ $EUID == 0 ]] || { as_root=(sudo -n) && sudo -n true 2>/dev/null; }; then
            say "installing what the build needs: $packages"
            apt update || say "apt-get update failed; trying with the package lists that are there"
            # shellcheck disable=SC2086 # a list of words
            apt install --no-install-recommends $packages || say "apt-get install failed"
            find_tools && return
            hint="newer versions of: $packages"
        fi
    elif type -P brew >/dev/null; then
        hint="xcode-select --install; brew install cmake boost"
    elif type -P dnf >/dev/null; then
        hint="sudo dnf install cmake make gcc-c++ boost-devel"
    elif type -P pacman >/dev/null; then
        hint="sudo pacman -S --needed cmake make gcc boost"
    elif type -P apk >/dev/null; then
        hint="sudo apk add cmake make g++ boost-dev linux-headers"
    fi
    die "the build needs: $missing. Install it ($hint) or set BITCOIND=/path/to/bitcoind"
}

# Follows a build by the percentages in its log: one line that changes on a terminal, else one for
# every tenth. The second target counts from low numbers again, hence only what is new is shown.
follow_build() {
    local log=$1 shown=0 step=10 percent end=$'\n'
    [[ ! -t 2 ]] || { step=1; end=$'\r'; }
    while kill -0 "$!" 2>/dev/null; do
        sleep 0.5
        percent=$(grep -o '^\[ *[0-9]*%\]' "$log" | tail -n 1 | tr -dc 0-9) || :
        if ((${percent:-0} >= shown + step)); then
            shown=$((percent - percent % step))
            printf 'bitcoind.sh: building: %3s%% (%d:%02d min)%s' "$shown" $((SECONDS / 60)) $((SECONDS % 60)) "$end" >&2
        fi
    done
    [[ ! -t 2 ]] || echo >&2
    wait "$!"
}

make_source() {
    local jobs log=$work/build.log build=$work/build
    fetch_source
    ensure_tools
    jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)}
    say "building Bitcoin Core $CORE_IN_CRATE with $cxx, $jobs at a time: this takes about $(((BUILD_CORE_MINUTES + jobs - 1) / jobs)) minutes"
    unset MAKEFLAGS MFLAGS # of a make or cargo that called us
    SECONDS=0
    if ! run cmake -G 'Unix Makefiles' -S "$source_dir" -B "$build" -DCMAKE_CXX_COMPILER="$cxx" "${CMAKE_FLAGS[@]}" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "cmake could not configure Bitcoin Core (its last words are above)"
    fi
    start cmake --build "$build" -j "$jobs" --target bitcoind bitcoin-cli >"$log" 2>&1
    if ! follow_build "$log"; then
        { grep -E -A 5 'error:|Killed' "$log" || tail -n 30 "$log"; } | sed -n 1,40p >&2
        die "the build of Bitcoin Core failed (the reason is above; out of memory? CMAKE_BUILD_PARALLEL_LEVEL=1 needs least)"
    fi
    say "built in $((SECONDS / 60)) min $((SECONDS % 60)) s"
    stage source "$build/bin/bitcoind" "$build/bin/bitcoin-cli" || die "what was built is of no use"
}

# --- putting it in place ------------------------------------------------------------------------

# stage WAY BITCOIND BITCOIN_CLI: tries the program, then moves both into the cache and answers.
stage() {
    local target
    target=$(cached_by "$1")
    if ! version_of "$2" >/dev/null; then
        say "this bitcoind does not start on this machine"
        return 1
    fi
    mkdir -p "$work/stage/bin" && mv "$2" "$3" "$work/stage/bin/" || return 1
    if [[ -e $target ]]; then
        from_cache # without flock another run may have been first
        say "replacing $target, which does not start"
        mv "$target" "$work/broken" || return 1
    fi
    mv "$work/stage" "$target" || return 1
    rm -rf "$target/stage" # where mv puts ours if another run was first just now
    say "ready: $target/bin"
    answer "$target/bin/bitcoind"
}

main() {
    case $#:${1:-} in
        0:) ;;
        1:--help | 1:-h) usage; exit 0 ;;
        *) bad_usage "does not understand '$*'; see scripts/bitcoind.sh --help" ;;
    esac
    local signal from=${SORTIE_BITCOIND_FROM:-} ways
    case $from in
        '') ways='release source' ;;
        release | source) ways=$from ;;
        *) bad_usage "SORTIE_BITCOIND_FROM=$from: must be release or source" ;;
    esac
    [[ -z ${SORTIE_BITCOIND_SHA256:-} || $SORTIE_BITCOIND_SHA256 =~ ^[0-9a-f]{64}$ ]] ||
        bad_usage "SORTIE_BITCOIND_SHA256=$SORTIE_BITCOIND_SHA256: must be 64 small hexadecimal digits"
    [[ -n ${SORTIE_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-} ]] || bad_usage "set SORTIE_CACHE: there is no HOME"

    exec 3>&1 1>&2
    if [[ -z $from ]]; then
        [[ -z ${BITCOIND:-} ]] || from_variable
        from_path
    fi
    cache=$(absolute "${SORTIE_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/sortie}")
    from_cache

    trap clean_up EXIT
    for signal in HUP INT TERM; do
        # shellcheck disable=SC2064 # the signal's name is for now
        trap "on_signal $signal" "$signal"
    done
    lock_cache
    from_cache # another run may have made one while we waited
    work=$(mktemp -d "$cache/.making-$$.XXXXXX") || die "cannot make a folder in $cache"

    if [[ $from != source ]]; then
        make_release || :
        [[ $from != release ]] || die "no bitcoind: the release is of no use, and SORTIE_BITCOIND_FROM=release forbids building one"
        say "falling back to building from source"
    fi
    make_source
}

main "$@"
