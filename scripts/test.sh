#!/bin/bash
# Every test, once all are built: those of this kernel and those for the VM at the same time, since both wait far more
# than they compute. What the VM prints comes after the rest, so that the two do not mix.
set -euo pipefail
cd "$(dirname "$0")/.."

log=${CARGO_TARGET_DIR:-target}/vm-tests.log
make test-vm >"$log" 2>&1 &
vm=$!
# A job in the background does not hear Ctrl-C; the VM itself ends with the one that started it.
trap 'kill "$vm" 2>/dev/null || true' EXIT

native=0
make test-native || native=$?
echo "test: native tests took $SECONDS s; now what the VM has printed meanwhile"
tail --pid="$vm" --lines=+1 --follow "$log"
wait "$vm"
exit "$native"
