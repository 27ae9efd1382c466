#!/usr/bin/env bash
# Runs every test, and closes with one line: N passed, N failed.
#
#   tests/run.sh            all
#   tests/run.sh NAME...    some: unit fuzz api examples azure consul kubernetes peers users doc
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

work=$(mktemp -d)
log=$work/log
: >"$log"
# Each run is a process group of its own: however this ends, nothing that it started goes on.
set -m
group=
servers=()
stop() {
    [ -z "$group" ] || kill -TERM -- "-$group" 2>/dev/null
    for server in "${servers[@]}"; do kill -TERM -- "-$server" 2>/dev/null; done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

status=0

# Azurite from the committed lock file, http and https on free ports of this machine.
azurite=tests/servers/azurite
free_port() {
    node -e 's = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })'
}
azurite_runs=
start_azurite() { # once, whoever asks
    [ -z "$azurite_runs" ] || return 0
    need node "install Node 20 or later (Debian: apt-get install nodejs npm)"
    need npm "install Node 20 or later (Debian: apt-get install nodejs npm)"
    need openssl "install openssl (Debian: apt-get install openssl)"
    [ -z "$missing" ] || return 1
    if ! cmp -s $azurite/package-lock.json $azurite/node_modules/.installed; then
        (cd $azurite && npm ci --no-fund --no-audit) || return 1
        cp $azurite/package-lock.json $azurite/node_modules/.installed
    fi
    local certificate=$work/azurite.pem key=$work/azurite.key
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout "$key" -out "$certificate" \
        -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" -addext "basicConstraints=critical,CA:FALSE" 2>/dev/null || return 1
    export LEASEHOLD_AZURITE_PROGRAM=$PWD/$azurite/node_modules/.bin/azurite-blob
    export LEASEHOLD_AZURITE_CERTIFICATE=$certificate
    local port
    for scheme in http https; do
        port=$(free_port)
        local tls=()
        # With `--oauth` it takes tokens, and refuses plain http.
        [ $scheme = http ] || tls=(--cert "$certificate" --key "$key" --oauth basic)
        "$LEASEHOLD_AZURITE_PROGRAM" --silent --disableTelemetry --inMemoryPersistence --skipApiVersionCheck \
            --blobPort "$port" "${tls[@]}" >"$work/azurite-$scheme.log" 2>&1 &
        servers+=($!)
        for _ in $(seq 300); do
            (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
            kill -0 "${servers[-1]}" 2>/dev/null || { cat "$work/azurite-$scheme.log" >&2; return 1; }
            sleep 0.1
        done
        export "LEASEHOLD_AZURITE${tls:+_HTTPS}=$scheme://127.0.0.1:$port/devstoreaccount1"
    done
    azurite_runs=yes
}

# Consul from the committed module files, an agent on unused ports of this machine.
unused_port() { # nobody listens on it, and the kernel gives it to nobody by itself
    local port
    while port=$((20000 + RANDOM % 10000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}
consul_runs=
start_consul() { # once, whoever asks
    [ -z "$consul_runs" ] || return 0
    need go "install Go 1.24 or later, see https://go.dev/doc/install"
    need openssl "install openssl (Debian: apt-get install openssl)"
    [ -z "$missing" ] || return 1
    (cd tests/servers/consul && go build -mod=readonly -buildvcs=false -ldflags '-s -w' -o "$work/consul" \
        github.com/hashicorp/consul) || return 1
    export LEASEHOLD_CONSUL_PROGRAM=$work/consul
    LEASEHOLD_CONSUL=127.0.0.1:$(unused_port)
    export LEASEHOLD_CONSUL
    "$work/consul" agent -dev -log-level error -bind 127.0.0.1 -http-port "${LEASEHOLD_CONSUL#*:}" \
        -server-port "$(unused_port)" -serf-lan-port "$(unused_port)" -serf-wan-port -1 -grpc-port -1 \
        -grpc-tls-port -1 -dns-port -1 >"$work/consul.log" 2>&1 &
    servers+=($!)
    for _ in $(seq 300); do
        "$work/consul" kv get -http-addr="$LEASEHOLD_CONSUL" -keys >/dev/null 2>&1 && break
        kill -0 "${servers[-1]}" 2>/dev/null || { cat "$work/consul.log" >&2; return 1; }
        sleep 0.1
    done
    consul_runs=yes
}

# kube-apiserver and etcd from the committed module files, on free ports. Go itself decides what is to be built anew.
kubernetes_runs=
start_kubernetes() { # once, whoever asks
    [ -z "$kubernetes_runs" ] || return 0
    need go "install Go 1.24 or later, see https://go.dev/doc/install"
    need curl "install curl (Debian: apt-get install curl)"
    need openssl "install openssl (Debian: apt-get install openssl)"
    [ -z "$missing" ] || return 1
    export LEASEHOLD_KUBERNETES_PROGRAMS=$work/kubernetes
    mkdir "$work/kubernetes"
    (cd tests/servers/kubernetes && go build -mod=readonly -buildvcs=false -ldflags '-s -w' -o "$work/kubernetes/" \
        k8s.io/kubernetes/cmd/kube-apiserver) || return 1
    (cd tests/servers/kubernetes && go build -mod=readonly -buildvcs=false -ldflags '-s -w' \
        -o "$work/kubernetes/etcd" go.etcd.io/etcd/server/v3) || return 1
    # The API server makes itself a certificate, which is its own authority.
    (cd "$work/kubernetes" && exec "$OLDPWD/tests/servers/kubernetes/start" "$work/kubernetes" "$work/kubernetes/data") &
    servers+=($!)
    for _ in $(seq 600); do
        [ -s "$work/kubernetes/data/ready" ] && break
        kill -0 "${servers[-1]}" 2>/dev/null || { cat "$work/kubernetes/data/"*.log >&2; return 1; }
        sleep 0.1
    done
    LEASEHOLD_KUBERNETES=$(cat "$work/kubernetes/data/ready") || return 1
    export LEASEHOLD_KUBERNETES
    export LEASEHOLD_KUBERNETES_CA=$work/kubernetes/data/certs/apiserver.crt
    kubernetes_runs=yes
}

# Programs that lock as Go libraries do, from the committed module files. Go itself decides what is to be built anew.
build_peers() {
    need go "install Go 1.23 or later, see https://go.dev/doc/install"
    [ -z "$missing" ] || return 1
    mkdir "$work/peers"
    (cd tests/peers && go build -mod=readonly -buildvcs=false -o "$work/peers/" ./cmd/...) || return 1
    export LEASEHOLD_PEERS=$work/peers
}

run() { # run CARGO-TEST-ARGUMENT...
    echo "== cargo test $*"
    (set -o pipefail; cargo test "$@" 2>&1 | tee -a "$log") &
    group=$!
    wait "$group" || status=1
    group=
}

# Tests that are not run by a plain `cargo test` are run here.
all=(-- --include-ignored)
for part in "${@:-unit fuzz api examples azure consul kubernetes peers users doc}"; do
    for name in $part; do
        case $name in
            unit) run --lib --features azure,consul,kubeconfig,lockgate,lockgate-files "${all[@]}" ;;
            fuzz)
                # The seeds alone, by any compiler; built apart, since `--cfg fuzzing` is another build of everything.
                RUSTFLAGS="${RUSTFLAGS:-} --cfg fuzzing" run --manifest-path fuzz/Cargo.toml --no-default-features \
                    --target-dir "${CARGO_TARGET_DIR:-target}/fuzzing"
                ;;
            api) run --test it "${all[@]}" ;;
            examples)
                # `cargo test` of one test alone does not build the programs that it runs.
                cargo build --examples || status=1
                run --test run_locked --test locks --test fencing "${all[@]}"
                ;;
            azure)
                need curl "install curl (Debian: apt-get install curl)"
                { [ -z "$missing" ] && start_azurite; } || { status=1; continue; }
                # `cargo test` of one test alone does not build the programs that it runs.
                cargo build --features azure --examples || status=1
                run --features azure --test azure "${all[@]}" --skip peers:: --test-threads=4
                ;;
            consul)
                start_consul || { status=1; continue; }
                run --features consul --test consul "${all[@]}" --skip peers::
                ;;
            kubernetes)
                start_kubernetes || { status=1; continue; }
                # `cargo test` of one test alone does not build the programs that it runs.
                cargo build --features kubeconfig,lockgate --examples || status=1
                run --features kubeconfig,lockgate --test kubernetes "${all[@]}" --skip peers:: --test-threads=3
                ;;
            peers)
                { start_azurite && start_consul && build_peers; } || { status=1; continue; }
                run --features azure --test azure peers:: "${all[@]}"
                run --features consul --test consul peers:: "${all[@]}"
                run --features lockgate-files,lockgate --test lockgate "${all[@]}"
                start_kubernetes || { status=1; continue; }
                run --features kubeconfig,lockgate --test kubernetes peers:: "${all[@]}"
                ;;
            users)
                start_azurite || { status=1; continue; }
                run --package user-programs "${all[@]}"
                ;;
            doc) run --doc --features azure,consul,kubeconfig,lockgate,lockgate-files "${all[@]}" ;;
            *) echo "tests/run.sh: no such part: $name (unit fuzz api examples azure consul kubernetes peers users doc)" >&2; exit 1 ;;
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
