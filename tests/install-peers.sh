#!/bin/sh
# Installs what tests and benchmarks run layerbuild against. Called by `make test` and `make bench`.
#   install-peers.sh system PACKAGE...   Debian packages that are missing (needs root)
#   install-peers.sh clients DIR         versions of the Hugging Face clients, a mirror, and what looks at pages, each in
#                                        a directory of its own
set -eu

missing() {
    for package in "$@"; do
        case "$package" in
        chromium-driver) program=chromedriver ;;
        *) program=$package ;;
        esac
        command -v "$program" >/dev/null 2>&1 || printf '%s ' "$package"
    done
}

case "$1" in
system)
    shift
    wanted=$(missing "$@")
    [ -n "$wanted" ] || exit 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "these programs are needed: $wanted" >&2
        echo "install them (Debian: apt-get install $wanted) and run make again" >&2
        exit 1
    fi
    echo "installing $wanted"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    apt-get install -y -qq --no-install-recommends $wanted >/dev/null
    ;;
clients)
    directory=$2
    mkdir -p "$directory"
    # name, then requirements: the oldest client that people still run, the last before version 1, and the
    # newest of both libraries; and a caching mirror of the Hub.
    while read -r name requirements; do
        [ -n "$name" ] || continue
        stamp="$directory/$name/.requirements"
        [ "$(cat "$stamp" 2>/dev/null || true)" = "$requirements" ] && continue
        echo "installing $requirements into $directory/$name"
        rm -rf "${directory:?}/$name"
        # shellcheck disable=SC2086  # a list of words
        "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --target "$directory/$name" $requirements
        printf '%s' "$requirements" >"$stamp"
    done <<LIST
hub-old huggingface_hub==0.16.4
hub-mid huggingface_hub==0.36.0
hub-new huggingface_hub
transformers transformers
olah olah==0.5.4
LIST
    # finds what keeps people from reading a page: run inside of it by the tests
    axe=axe-core@4.14.1
    if [ "$(cat "$directory/axe/.requirements" 2>/dev/null || true)" != "$axe" ]; then
        echo "installing $axe into $directory/axe"
        rm -rf "${directory:?}/axe"
        mkdir "$directory/axe"
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$directory/axe" "$axe"
        printf '%s' "$axe" >"$directory/axe/.requirements"
    fi
    ;;
*)
    echo "usage: $0 system PACKAGE... | clients DIR" >&2
    exit 2
    ;;
esac
