#!/bin/sh
# gpuspan on a GPU: unpacks what is appended to this script, runs it, and removes it again.
# Needs Linux, an NVIDIA GPU, a python3 that holds PyTorch (or GPUSPAN_PYTHON=/path/to/python), and root for the probes.
# Takes at most 8 minutes and no network. `--help` lists its flags; `--unpack FOLDER` unpacks and runs nothing.
# How to read the table: docs/gpu.md of gpuspan.
set -eu
unpack() { tail -n +@FIRST_PACKED_LINE@ "$0" | tar -xzf - -C "$1"; }
if [ "${1:-}" = --unpack ]; then
  mkdir -p "$2"
  unpack "$2"
  exit
fi
folder=$(mktemp -d "${TMPDIR:-/tmp}/gpuspan-gpu.XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
unpack "$folder"
PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}" "${GPUSPAN_PYTHON:-python3}" -B -m gpucheck --unpacked "$folder" "$@"
exit
