#!/usr/bin/env bash
# Runs every test, and closes with one line: N passed, N failed.
#
#   tests/run.sh            all
#   tests/run.sh NAME...    some: unit api run_locked users doc
set -uo pipefail
cd "$(dirname "$0")/.."

need() { # need COMMAND HOW-TO-GET-IT
    command -v "$1" >/dev/null || { echo "tests/run.sh: $1 is missing: $2" >&2; missing=1; }
}
missing=
need cargo "install Rust 1.88 or later, see https://rustup.rs"
if [ "$(uname)" = Linux ]; then
    need flock "install util-linux (Debian: apt-get install util-linux)"
    need unshare "install util-linux (Debian: apt-get install util-linux)"
    need mount "install mount (Debian: apt-get install mount)"
    need script "install bsdutils (Debian: apt-get install bsdutils)"
fi
[ -z "$missing" ] || exit 1

log=$(mktemp)
# Each run is a process group of its own: however this ends, nothing that it started goes on.
set -m
group=
stop() {
    [ -z "$group" ] || kill -TERM -- "-$group" 2>/dev/null
    rm -f "$log"
}
trap stop EXIT
trap 'exit 130' INT TERM

status=0
run() { # run CARGO-TEST-ARGUMENT...
    echo "== cargo test $*"
    (set -o pipefail; cargo test "$@" 2>&1 | tee -a "$log") &
    group=$!
    wait "$group" || status=1
    group=
}

# Tests that are not run by a plain `cargo test` are run here.
all=(-- --include-ignored)
for part in "${@:-unit api run_locked users doc}"; do
    for name in $part; do
        case $name in
            unit) run --lib "${all[@]}" ;;
            api) run --test it "${all[@]}" ;;
            run_locked)
                # `cargo test` of one test alone does not build the programs that it runs.
                cargo build --examples || status=1
                run --test run_locked "${all[@]}"
                ;;
            users) run --package user-programs "${all[@]}" ;;
            doc) run --doc "${all[@]}" ;;
            *) echo "tests/run.sh: no such part: $name (unit api run_locked users doc)" >&2; exit 1 ;;
        esac
    done
done

passed=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
failed=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
if [ "$status" != 0 ]; then
    grep -E '^(test .* FAILED$|error)' "$log" || true
    [ "$failed" != 0 ] || failed=1
fi
echo "$passed passed, $failed failed"
exit "$status"
