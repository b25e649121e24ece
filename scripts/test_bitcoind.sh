#!/usr/bin/env bash
# Tests scripts/bitcoind.sh without the network: a mirror on the loopback that misbehaves on demand,
# and stubs for what would compile or install. One line for each promise; exit 1 if one is broken.
# shellcheck disable=SC2016 # conditions are written in single quotes, for check to evaluate
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tmp=$(cd "$(mktemp -d)" && pwd -P)
mirror_pid=''
trap '[[ -z $mirror_pid ]] || kill "$mirror_pid" 2>/dev/null; rm -rf "$tmp"' EXIT

# --- the stage ----------------------------------------------------------------------------------

program() { # PATH: makes it an executable with the body on stdin
    mkdir -p "$(dirname "$1")"
    { echo '#!/usr/bin/env bash'; cat; } >"$1"
    chmod +x "$1"
}

fake_bitcoind() { program "$1" <<<"echo 'Bitcoin Core daemon version v$2'"; }

stubs=$tmp/stubs
fake_bitcoind "$stubs/bitcoind" 27.2.0 # hides one that this machine may have, and is too old
program "$stubs/uname" <<'END'
case $1 in -s) echo Linux ;; -m) echo "${STUB_MACHINE:-x86_64}" ;; esac
END
# Fails, or "fetches" a crate with a good or a wrong sum.
program "$stubs/cargo" <<END
echo "\$*" >>"$tmp/cargo.log"
[[ \${STUB_CARGO:-offline} != offline ]] || { echo 'error: no network' >&2; exit 101; }
while [[ \$1 != --manifest-path ]]; do command=\${command:-\$1}; shift; done
sum=\$(sed -n 's/^readonly CRATE_SHA256=//p' "$here/bitcoind.sh")
[[ \$STUB_CARGO == good ]] || sum=\${sum//a/b}
case \$command in
    fetch) echo "checksum = \"\$sum\"" >"\$(dirname "\$2")/Cargo.lock" ;;
    metadata) echo '{"packages":[{"manifest_path":"$tmp/libbitcoinkernel-sys-0.4.1/Cargo.toml"}]}' ;;
esac
END
mkdir -p "$tmp/libbitcoinkernel-sys-0.4.1/bitcoin"
touch "$tmp/libbitcoinkernel-sys-0.4.1/bitcoin/CMakeLists.txt"
program "$stubs/cmake" <<'END'
[[ $1 != --version ]] || { echo "cmake version ${STUB_CMAKE:-3.25.1}"; exit; }
[[ $1 == --build ]] || exit 0
echo '[ 42%] Building CXX object x.o'
sleep "${STUB_BUILD_SECONDS:-0}"
[[ -z ${STUB_BUILD_ERROR:-} ]] || { echo "x.cpp:1: error: $STUB_BUILD_ERROR"; exit 2; }
mkdir -p "$2/bin"
printf '#!/bin/sh\necho "Bitcoin Core daemon version v31.99.0"\n' | tee "$2/bin/bitcoind" >"$2/bin/bitcoin-cli"
chmod +x "$2"/bin/*
END
for name in c++ cc make; do program "$stubs/$name" <<<':'; done
program "$stubs/sudo" <<<'exit 1'
program "$stubs/apt-get" <<END
echo "\$*" >>"$tmp/apt.log"
exit 100
END

out='' err='' status=0 cache=''
fresh_cache() { cache=$(mktemp -d "$tmp/cache.XXXXXX"); }
# To be called in a subshell, which becomes the command: so a signal to it reaches the command.
staged() {
    exec env -u BITCOIND -u SORTIE_BITCOIND_FROM -u XDG_CACHE_HOME -u CC -u CXX -u http_proxy -u HTTP_PROXY \
        -u all_proxy -u ALL_PROXY -u CMAKE_BUILD_PARALLEL_LEVEL \
        HOME="$tmp/home" PATH="$stubs:$PATH" SORTIE_CACHE="$cache" SORTIE_BITCOIN_MIRROR=http://127.0.0.1:1 "$@"
}
bitcoind() { # VARIABLE=VALUE...: runs bitcoind.sh; sets out, err and status
    status=0
    out=$(staged "$@" "$here/bitcoind.sh" 2>"$tmp/err") || status=$?
    err=$(<"$tmp/err")
}

# --- checks -------------------------------------------------------------------------------------

passed=0 failed=0
check() { # NAME CONDITION...
    if "${@:2}"; then
        passed=$((passed + 1))
        echo "ok   $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1"
        printf '     status %s, stdout: %s, stderr:\n%s\n' "$status" "$out" "$err" | sed 's/^/     /'
    fi
}
skip() { echo "skip $1"; }
answers() { [[ $status == 0 && $out == "$1" ]]; }
says() { [[ $err == *"$1"* ]]; }
fails() { # EXIT-CODE WORDS...
    [[ $status == "$1" && -z $out ]] || return 1
    for words in "${@:2}"; do says "$words" || return 1; done
}
cache_is_empty() { [[ -z $(find "$cache" -mindepth 1 ! -name bitcoind.lock) ]]; }
fails_clean() { fails "$@" && cache_is_empty; }
wait_for() { # CONDITION...: at most 5 s
    for _ in {1..100}; do ! "$@" 2>/dev/null || return 0; sleep 0.05; done
    return 1
}
# shellcheck disable=SC2009 # pgrep is not everywhere
nobody_works_on() { ! ps -eo args | grep -v grep | grep -qF "$1/.making"; }

# --- usage and what is there already ------------------------------------------------------------

fresh_cache
out=$("$here/bitcoind.sh" --help) || status=$?
check '--help names every variable and exits 0' eval \
    '[[ $status == 0 && $out == *SORTIE_CACHE*SORTIE_BITCOIND_FROM*SORTIE_BITCOIN_MIRROR*SORTIE_BITCOIND_SHA256* ]]'
status=0
out=$("$here/bitcoind.sh" --nonsense 2>"$tmp/err") || status=$?
err=$(<"$tmp/err")
check 'an unknown argument is bad usage' fails 2 --nonsense
bitcoind SORTIE_BITCOIND_FROM=elsewhere
check 'an unknown way is bad usage' fails_clean 2 'must be release or source'
bitcoind SORTIE_BITCOIND_SHA256=abc
check 'a sum that is none is bad usage' fails_clean 2 hexadecimal

fake_bitcoind "$tmp/mine/bitcoind" 30.0.0
bitcoind BITCOIND="$tmp/mine/bitcoind"
check '$BITCOIND is taken, and the cache left alone' eval 'answers "$tmp/mine/bitcoind" && cache_is_empty'
cd "$tmp"
bitcoind BITCOIND=./mine/bitcoind
check 'a relative $BITCOIND is answered as an absolute path' answers "$tmp/mine/bitcoind"
bitcoind BITCOIND="$tmp/nowhere"
check 'a $BITCOIND that does not exist is refused' fails_clean 2 "BITCOIND=$tmp/nowhere is not an executable file"
bitcoind BITCOIND=/bin/true
check 'a $BITCOIND that is something else is refused' fails_clean 2 'does not answer -version'
program "$tmp/mine/dying" <<<"echo 'Bitcoin Core daemon version v30.0.0'; exit 1"
bitcoind BITCOIND="$tmp/mine/dying"
check 'a $BITCOIND that fails is refused' fails_clean 2 'does not answer -version'
bitcoind PATH="$tmp/mine:$stubs:$PATH"
check 'a bitcoind in PATH is taken' answers "$tmp/mine/bitcoind"
bitcoind
check 'a bitcoind in PATH that is too old is named and passed over' says "$stubs/bitcoind is too old: 27.2.0"
fake_bitcoind "$cache/bitcoind-30.2/bin/bitcoind" 30.2.0
bitcoind
check 'one in the cache is taken' answers "$cache/bitcoind-30.2/bin/bitcoind"
bitcoind SORTIE_BITCOIND_FROM=source
check 'SORTIE_BITCOIND_FROM=source does not take a cached release' fails 1 'cargo could not fetch'

# --- the release --------------------------------------------------------------------------------

sha256_of() { python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"; }

mirror_checks() {
    local sum pid
    fake_bitcoind "$tmp/bitcoin-30.2/bin/bitcoind" 30.2.0
    fake_bitcoind "$tmp/bitcoin-30.2/bin/bitcoin-cli" 30.2.0
    head -c 300000 /dev/urandom >"$tmp/bitcoin-30.2/padding"
    tar -czf "$tmp/good.tar.gz" -C "$tmp" bitcoin-30.2
    program "$tmp/bitcoin-30.2/bin/bitcoind" <<<'exit 127'
    tar -czf "$tmp/dead.tar.gz" -C "$tmp" bitcoin-30.2
    sum=$(sha256_of "$tmp/good.tar.gz")

    fresh_cache
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/good" SORTIE_BITCOIND_SHA256="$sum"
    check 'a release with the right sum is accepted' answers "$cache/bitcoind-30.2/bin/bitcoind"
    check '... bitcoin-cli comes with it, and nothing else stays' eval \
        '[[ $(cd "$cache" && find . -type f ! -name bitcoind.lock | sort | tr "\n" " ") == "./bitcoind-30.2/bin/bitcoin-cli ./bitcoind-30.2/bin/bitcoind " ]]'
    check '... it was asked for under its official name' grep -qx \
        '/good/bitcoin-core-30.2/bitcoin-30.2-x86_64-linux-gnu.tar.gz' "$tmp/mirror.log"
    : >"$tmp/mirror.log"
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/good" SORTIE_BITCOIND_SHA256="$sum"
    check 'the second call is served from the cache and asks nobody' eval \
        'answers "$cache/bitcoind-30.2/bin/bitcoind" && [[ ! -s $tmp/mirror.log ]]'
    program "$cache/bitcoind-30.2/bin/bitcoind" <<<'exit 127'
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/good" SORTIE_BITCOIND_SHA256="$sum"
    check 'a cached one that does not start is replaced' eval \
        'answers "$cache/bitcoind-30.2/bin/bitcoind" && [[ $("$out" -version) == *v30.2.0 ]]'

    fresh_cache
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/good"
    check 'without an override the pinned sum is demanded' fails_clean 1 'WRONG CHECKSUM' \
        6aa7bb4feb699c4c6262dd23e4004191f6df7f373b5d5978b5bcdd4bb72f75d8 "got $sum"
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/good" STUB_MACHINE=aarch64
    check '... and that of the machine' fails_clean 1 'WRONG CHECKSUM' aarch64-linux-gnu \
        73e76c14edc79808a0511c744d102ffbb494807ee90cbcba176568243254b532
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/corrupt" SORTIE_BITCOIND_SHA256="$sum"
    check 'a corrupted release is refused, deleted, and the source comes next' fails_clean 1 'WRONG CHECKSUM' \
        'falling back to building from source'
    : >"$tmp/cargo.log"
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/corrupt" SORTIE_BITCOIND_SHA256="$sum" SORTIE_BITCOIND_FROM=release
    check '... but not when only a release will do' eval 'fails_clean 1 "WRONG CHECKSUM" && [[ ! -s $tmp/cargo.log ]]'
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/truncated" SORTIE_BITCOIND_SHA256="$sum"
    check 'a download that breaks off leaves nothing' fails_clean 1 'the download failed' 'falling back'
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/short" SORTIE_BITCOIND_SHA256="$sum"
    check 'half a release that claims to be whole leaves nothing' fails_clean 1 'WRONG CHECKSUM'
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/missing" SORTIE_BITCOIND_SHA256="$sum"
    check 'a mirror without the release leaves nothing' fails_clean 1 'the download failed' 'falling back'
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/dead" SORTIE_BITCOIND_SHA256="$(sha256_of "$tmp/dead.tar.gz")"
    check 'a release that does not start here is not kept' fails_clean 1 'does not start on this machine' 'falling back'

    if type -P curl wget | grep -q wget; then
        mkdir -p "$tmp/no-curl"
        IFS=: read -ra folders <<<"$PATH"
        for folder in "${folders[@]}"; do ln -s "$folder"/* "$tmp/no-curl/" 2>/dev/null || :; done
        rm -f "$tmp/no-curl/curl"
        bitcoind PATH="$stubs:$tmp/no-curl" SORTIE_BITCOIN_MIRROR="$mirror/truncated" SORTIE_BITCOIND_SHA256="$sum"
        check 'without curl wget does it: a broken download' fails_clean 1 falling
        bitcoind PATH="$stubs:$tmp/no-curl" SORTIE_BITCOIN_MIRROR="$mirror/good" SORTIE_BITCOIND_SHA256="$sum"
        check 'without curl wget does it: a good one' answers "$cache/bitcoind-30.2/bin/bitcoind"
    else
        skip 'downloads with wget: there is none'
    fi

    fresh_cache
    for signal in TERM HUP; do
        : >"$tmp/mirror.log"
        staged SORTIE_BITCOIN_MIRROR="$mirror/stall" "$here/bitcoind.sh" >"$tmp/out" 2>"$tmp/err" &
        pid=$!
        check "a download is under way (for SIG$signal)" wait_for eval '[[ -s $(echo "$cache"/.making-*/release.tar.gz) ]]'
        kill -s "$signal" "$pid"
        status=0
        wait "$pid" 2>/dev/null || status=$?
        out=$(<"$tmp/out") err=$(<"$tmp/err")
        check "SIG$signal in the middle of it leaves no file and no process" eval \
            '[[ $status -gt 128 && -z $out ]] && cache_is_empty && nobody_works_on "$cache"'
    done
    staged SORTIE_BITCOIN_MIRROR="$mirror/stall" "$here/bitcoind.sh" >/dev/null 2>&1 &
    pid=$!
    wait_for eval '[[ -s $(echo "$cache"/.making-*/release.tar.gz) ]]' || :
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null || :
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/good" SORTIE_BITCOIND_SHA256="$sum"
    check 'what SIGKILL leaves is swept away by the next run' eval \
        'answers "$cache/bitcoind-30.2/bin/bitcoind" && [[ -z $(find "$cache" -name ".making-*") ]]'

    fresh_cache
    : >"$tmp/mirror.log"
    staged SORTIE_BITCOIN_MIRROR="$mirror/slow" SORTIE_BITCOIND_SHA256="$sum" "$here/bitcoind.sh" >"$tmp/first" 2>/dev/null &
    pid=$!
    bitcoind SORTIE_BITCOIN_MIRROR="$mirror/slow" SORTIE_BITCOIND_SHA256="$sum"
    wait "$pid" || :
    check 'two runs at once agree' eval \
        'answers "$cache/bitcoind-30.2/bin/bitcoind" && [[ $(<"$tmp/first") == "$out" ]]'
    check '... and leave one bitcoind' eval '[[ $(find "$cache" -name bitcoind -type f) == "$out" ]]'
    if type -P flock >/dev/null; then
        check '... and one of them downloads' eval '[[ $(wc -l <"$tmp/mirror.log") -eq 1 ]]'
    else
        skip '... and one of them downloads: there is no flock'
    fi
}

if python3 -c '' 2>/dev/null; then
    cat >"$tmp/mirror.py" <<'END'
import http.server, os, sys, time
tmp = sys.argv[1]
class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(tmp + "/mirror.log", "a") as log: log.write(self.path + "\n")
        how = self.path.split("/")[1]
        if how == "missing": return self.send_error(404)
        with open(tmp + ("/dead.tar.gz" if how == "dead" else "/good.tar.gz"), "rb") as file: body = file.read()
        half = body[:len(body) // 2]
        if how == "corrupt": body = half + bytes([body[len(half)] ^ 1]) + body[len(half) + 1:]
        if how == "short": body = half
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            if how in ("truncated", "stall", "slow"): self.wfile.write(half)
            if how == "stall": time.sleep(60)
            if how == "slow": time.sleep(0.5); self.wfile.write(body[len(half):])
            if how not in ("truncated", "stall", "slow"): self.wfile.write(body)
        except OSError: pass
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer.daemon_threads = True
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
with open(tmp + "/port.new", "w") as file: file.write(str(server.server_port))
os.rename(tmp + "/port.new", tmp + "/port")
server.serve_forever()
END
    : >"$tmp/mirror.log"
    python3 "$tmp/mirror.py" "$tmp" &
    mirror_pid=$!
    check 'the mirror of this test is up' wait_for test -s "$tmp/port"
    mirror=http://127.0.0.1:$(<"$tmp/port")
    mirror_checks
else
    skip 'everything about downloads: there is no python3 for a mirror'
fi

# --- the source ---------------------------------------------------------------------------------

fresh_cache
bitcoind
check 'an unreachable mirror: falls back to the source, and without cargo says what to do' fails_clean 1 \
    'the download failed' 'falling back to building from source' 'get online, or set BITCOIND='
bitcoind STUB_MACHINE=riscv64
check 'a machine without a pinned release: falls back to the source' fails_clean 1 'no release is pinned' 'falling back'
bitcoind STUB_CARGO=wrong
check 'a crate that is not the pinned one is refused' fails_clean 1 'WRONG CHECKSUM: the crate'
bitcoind STUB_CARGO=good STUB_CMAKE=3.18.0
check 'a missing tool: one line says what to install' fails_clean 1 'the build needs: cmake >= 3.22. Install it (' ' cmake) or set BITCOIND='
if [[ $EUID == 0 ]]; then
    check '... after apt-get was asked, for root' eval '[[ $(<"$tmp/apt.log") == *update*install*" cmake" ]]'
fi
bitcoind SORTIE_BITCOIND_FROM=source STUB_CARGO=good STUB_BUILD_ERROR='no such luck'
check 'a build that fails shows its error and leaves nothing' fails_clean 1 'error: no such luck' 'build of Bitcoin Core failed'
staged SORTIE_BITCOIND_FROM=source STUB_CARGO=good STUB_BUILD_SECONDS=60 "$here/bitcoind.sh" >/dev/null 2>&1 &
pid=$!
wait_for eval '[[ -s $(echo "$cache"/.making-*/build.log) ]]' || :
kill "$pid"
wait "$pid" 2>/dev/null || :
check 'a build that is killed leaves no file and no process' eval 'cache_is_empty && nobody_works_on "$cache"'
bitcoind SORTIE_BITCOIND_FROM=source STUB_CARGO=good STUB_BUILD_SECONDS=1.2
check 'a build that works is cached' answers "$cache/bitcoind-31.99-0.4.1/bin/bitcoind"
check '... and showed how far it was' says 'building:  40%'
check '... and brought bitcoin-cli' test -x "$cache/bitcoind-31.99-0.4.1/bin/bitcoin-cli"
bitcoind
check '... and is taken before anything is downloaded' answers "$cache/bitcoind-31.99-0.4.1/bin/bitcoind"

echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
