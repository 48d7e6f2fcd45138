#!/bin/sh
# The bill of materials of the agent, in CycloneDX 1.5, on standard output.
#
#   scripts/sbom.sh TARGET [PACKAGES]
#
# TARGET is the Rust target; PACKAGES a file as scripts/image.sh writes it: what of Debian is in the image besides.
# Crates are those linked into the binary for TARGET, not what builds or tests it. Same sources, same text: no time, no
# random number in it.
set -eu

target=$1
packages=${2:-/dev/null}
here=$(realpath "$(dirname "$0")/..")
cd "$here"

crates() {
  cargo tree --locked --package kube-router --edges normal,no-proc-macro --target "$target" --prefix none --format '{p}|{l}' | sort -u
}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
crates | jq --null-input --raw-input --compact-output --sort-keys --arg version "$version" --rawfile packages "$packages" '
  def crate: capture("^(?<name>[^ ]+) v(?<version>[^ |]+)[^|]*\\|(?<licence>.*)$")
    | {type: "library", name, version, purl: "pkg:cargo/\(.name)@\(.version)"}
      + if .licence == "" then {} else {licenses: [{expression: (.licence | gsub("/"; " OR "))}]} end;
  def package: split(" ") as [$name, $version, $architecture, $source]
    | {type: "library", name: $name, version: $version,
       purl: "pkg:deb/debian/\($name)@\($version | @uri)?arch=\($architecture)",
       properties: [{name: "debian:source", value: $source}]};
  ([inputs | select(test("\\(\\*\\)$") | not) | crate] | unique | sort_by(.name, .version)) as $crates
  | ($packages | split("\n") | map(select(. != "")) | map(package)) as $debian
  | {bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
     metadata: {component: {type: "application", name: "kube-router", version: $version,
                            purl: "pkg:github/cloudnativelabs/kube-router@\($version)"}},
     components: (($crates | map(select(.name as $name | ["kube-router", "linux", "bgp"] | index($name) | not))) + $debian)}'
