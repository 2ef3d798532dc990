#!/bin/sh
# Any machine or container with Python 3.10 and git: sh container.sh DESTINATION
set -eu
python3 -m venv "${TMPDIR:-/tmp}/layerbuild"
PATH="${TMPDIR:-/tmp}/layerbuild/bin:$PATH"
python3 -m pip install --quiet "$LAYERBUILD"
layerbuild lock --check
layerbuild push "$1" --digest-file digests.txt
while read -r reference; do
  layerbuild audit "$reference"
done < digests.txt
