#!/bin/sh
# Installs what a fresh Debian 12 machine lacks to build kube-router and run its lab: Debian packages and Rust targets.
# Says one line per step it has to do, nothing when all is there, and ends with the reason when a step fails.
set -eu

packages="build-essential musl-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross ca-certificates
  qemu-system-x86 busybox-static xz-utils zstd kmod cpio
  iproute2 iputils-ping iptables nftables ipset ipvsadm conntrack tcpdump
  containernetworking-plugins jq systemd
  mmdebstrap umoci
  frr bird2 gobgpd exabgp tinyproxy-bin"
# A kubectl that is there, whatever its version, is the one to use.
command -v kubectl >/dev/null 2>&1 || packages="$packages kubernetes-client"
# Debian's container runtime would take the place of one from elsewhere.
command -v containerd >/dev/null 2>&1 || packages="$packages containerd"
command -v runc >/dev/null 2>&1 || packages="$packages runc"

log=$(mktemp)
trap 'rm -f "$log"' EXIT

step() {
  printf 'deps: %s\n' "$1" >&2
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    printf 'deps: failed: %s\n' "$*" >&2
    exit 1
  fi
}

missing=""
for package in $packages; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ]; then
    printf 'deps: not root, please install:%s\n' "$missing" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  step "refreshing the package list" apt-get update
  # shellcheck disable=SC2086 # the list is meant to be split
  step "installing$missing" apt-get install -y --no-install-recommends $missing
fi

if ! command -v cargo >/dev/null 2>&1; then
  echo "deps: no cargo on PATH; install a Rust toolchain first (https://rustup.rs)" >&2
  exit 1
fi
if command -v rustup >/dev/null 2>&1; then
  have=$(rustup target list --installed)
  for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl; do
    case "$have" in
      *"$target"*) ;;
      *) step "adding the Rust target $target" rustup target add "$target" ;;
    esac
  done
  have=$(rustup component list --installed)
  for component in rustfmt clippy; do
    case "$have" in
      *"$component"*) ;;
      *) step "adding $component" rustup component add "$component" ;;
    esac
  done
fi
