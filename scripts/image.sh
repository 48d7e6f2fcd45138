#!/bin/sh
# Builds the OCI images of kube-router, without a daemon and without running anything in them.
#
#   scripts/image.sh BINARY [ARCHITECTURE [OUTPUT]]
#
# BINARY is the static agent, ARCHITECTURE amd64 (default) or arm64, OUTPUT a folder (default target/image).
# Written there: `oci`, an OCI layout with two tags (arm64: with -arm64 behind), and for each tag its bill of materials in
# CycloneDX, `kube-router-TAG.cdx.json`.
#
#   VERSION      the agent, iptables of both flavours, modprobe, the CNI plugins, busybox: what the manifests use
#   VERSION-nft  the agent and certificates of public authorities (for an API server whose kubeconfig names none), nothing else
#
# Run as root. Same binary, same Debian packages, same SOURCE_DATE_EPOCH (default: the commit's): same digests.
set -eu
umask 022

binary=$(realpath "$1")
architecture=${2:-amd64}
here=$(realpath "$(dirname "$0")/..")
output=${3:-$here/target/image}
suite=bookworm
packages=iptables,kmod,busybox-static,containernetworking-plugins

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
case $architecture in
  amd64) suffix="" rust_target=x86_64-unknown-linux-musl ;;
  arm64) suffix=-arm64 rust_target=aarch64-unknown-linux-musl ;;
  *)
    echo "image.sh: $architecture is neither amd64 nor arm64" >&2
    exit 2
    ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$output"

# No script of a package is run, so any architecture can be built anywhere.
cat >"$work/list" <<LIST
#!/bin/sh
set -eu
# Certificates alone: what the package needs to be set up (perl, openssl) has no use here.
cd "\$1/var/cache/apt/archives"
APT_CONFIG="\$MMDEBSTRAP_APT_CONFIG" apt-get -qq -o APT::Sandbox::User=root download ca-certificates
dpkg-deb --extract ca-certificates_*.deb "\$1"
for deb in "\$1"/var/cache/apt/archives/*.deb; do
  dpkg-deb --show --showformat '\${Package} \${Version} \${Architecture} \${source:Package}\n' "\$deb"
done | LC_ALL=C sort >"$work/packages"
LIST
chmod 755 "$work/list"
mmdebstrap --quiet --variant=extract --architectures="$architecture" --include="$packages" \
  --extract-hook="$work/list" "$suite" "$work/full" >&2

# What is not needed goes; licences stay. Links stand for what the packages' own scripts would have set up.
arrange() {
  mkdir -p etc/ssl/certs
  LC_ALL=C find usr/share/ca-certificates -name '*.crt' | LC_ALL=C sort | xargs cat >etc/ssl/certs/ca-certificates.crt
  find usr/share/doc -type f ! -name copyright -delete
  find usr/share -mindepth 1 -maxdepth 1 ! -name doc -exec rm -rf {} +
  find usr/share/doc -depth -type d -empty -delete
  rm -rf boot dev etc/apt etc/dpkg etc/fstab etc/hostname etc/init.d etc/resolv.conf home lib/systemd media mnt opt proc \
    root run srv sys tmp usr/lib/*/engines-3 usr/lib/*/gconv usr/lib/*/ossl-modules usr/lib/systemd usr/lib/tmpfiles.d var
  mkdir -p dev etc/cni/net.d etc/kube-router host/proc/sys/net lib/modules opt/cni/bin proc run/kube-router sys tmp \
    usr/libexec/cni usr/local/bin var/lib/kube-router
  touch run/xtables.lock
  for plugin in bridge host-local portmap loopback; do mv "usr/lib/cni/$plugin" usr/libexec/cni/; done
  rm -rf usr/lib/cni
  for family in iptables ip6tables; do
    for program in "" -save -restore; do ln -sf "$family-nft$program" "usr/sbin/$family$program"; done
  done
  for applet in sh cat chmod cmp cp date dirname echo find grep head ip ls mkdir mv ps rm sed sort sysctl tail vi wget; do
    ln -sf busybox "bin/$applet"
  done
  install -m 755 "$binary" usr/local/bin/kube-router
  install -m 755 "$here/packaging/image/prepare-node" "$here/packaging/image/install-cni" usr/local/bin/
  ln -s install-cni usr/local/bin/cni-install
}
(cd "$work/full" && arrange)

install -D -m 755 "$binary" "$work/nft/usr/local/bin/kube-router"
install -D -m 644 "$work/full/etc/ssl/certs/ca-certificates.crt" "$work/nft/etc/ssl/certs/ca-certificates.crt"
mkdir -p "$work/nft/host/proc/sys/net" "$work/nft/run/kube-router" "$work/nft/var/lib/kube-router"

# layer FOLDER: the same files make the same archive.
layer() {
  find "$1" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
  tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu --transform='s,^\./,,' -cf "$1.tar" .
}
chmod -R go+rX,go-w "$work/nft"
layer "$work/full"
layer "$work/nft"

[ -f "$output/oci/index.json" ] || umoci init --layout "$output/oci"

# image TAG LAYER
image() {
  umoci new --image "$output/oci:$1"
  umoci raw add-layer --image "$output/oci:$1" --history.created "$created" --history.created_by scripts/image.sh "$2"
  umoci config --image "$output/oci:$1" --no-history --created "$created" --os linux --architecture "$architecture" \
    --clear config.entrypoint --config.entrypoint /usr/local/bin/kube-router \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --config.label "org.opencontainers.image.version=$version" \
    --config.label "org.opencontainers.image.licenses=Apache-2.0" \
    --config.label "org.opencontainers.image.source=https://github.com/cloudnativelabs/kube-router"
}
image "$version$suffix" "$work/full.tar"
image "$version-nft$suffix" "$work/nft.tar"
umoci gc --layout "$output/oci"
"$here/scripts/sbom.sh" "$rust_target" "$work/packages" >"$output/kube-router-$version$suffix.cdx.json"
"$here/scripts/sbom.sh" "$rust_target" >"$output/kube-router-$version-nft$suffix.cdx.json"
umoci ls --layout "$output/oci" >&2
