# Every way to build, see and test kube-router. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Built with the whole workspace, never alone: cargo would build the dependencies a second time, with fewer features.
BUILT := $(or $(CARGO_TARGET_DIR),target)/x86_64-unknown-linux-musl
LAB := $(BUILT)/debug/lab
# Seconds after which the VM is stopped, whatever it is doing.
VM_TIMEOUT ?= 4200
# Of the images: amd64 or arm64.
ARCH ?= amd64
RUST_TARGET = $(if $(filter arm64,$(ARCH)),aarch64,x86_64)-unknown-linux-musl

##@ See it
.PHONY: demo
demo: deps build ## A three-node cluster, services from examples/, real connections (KEEP=1 leaves it up with a shell)
	@started=$$SECONDS; $(LAB) demo $(if $(KEEP),--keep); echo "demo: $$((SECONDS - started)) s"

##@ Build
.PHONY: deps build release image
deps: ## Install what is missing on a Debian 12 machine
	@scripts/install-deps.sh
build: deps ## Debug build of the agent and the lab
	@cargo build --workspace --bins
release: deps ## Static release binaries for x86_64 and aarch64
	@for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl; do \
	  cargo build --release -p kube-router --target $$target; \
	done

image: deps ## OCI images of the release build in target/image, without a daemon (ARCH=arm64 for the other one)
	@cargo build --release -p kube-router --target $(RUST_TARGET)
	@scripts/image.sh $(or $(CARGO_TARGET_DIR),target)/$(RUST_TARGET)/release/kube-router $(ARCH)

##@ Test
.PHONY: test test-native test-vm fmt lint dependencies deny bench bench-bgp chaos
test: deps ## Everything: format, lints, dependencies, then native tests beside those that need the VM, in one boot
	@started=$$SECONDS; \
	$(MAKE) fmt lint dependencies; linted=$$SECONDS; \
	cargo test --workspace --no-run; built=$$SECONDS; \
	scripts/test.sh; \
	echo "test: $$((SECONDS - started)) s (lints $$((linted - started)), build $$((built - linted)), tests $$((SECONDS - built)))"
test-native: deps ## Unit, golden, kernel and lab tests on this kernel (root)
	@cargo test --workspace
test-vm: deps ## Tests that need IPVS, dummy links or tunnels: in a VM where this kernel lacks them
	@cargo test --workspace --no-run --quiet
	@mkdir -p target/lab-image; strip --strip-debug -o target/lab-image/kube-router $(BUILT)/debug/kube-router
	@scripts/image.sh target/lab-image/kube-router amd64 target/lab-image
	@$(LAB) vm test --timeout $(VM_TIMEOUT)
fmt: ## Check the formatting
	@cargo fmt --all -- --check
lint: deps ## Clippy, warnings denied
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
dependencies: ## Licences, bans and sources of the dependencies; builds cargo-deny (two minutes) if it is not there
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet --debug cargo-deny
	@cargo deny --log-level error check licenses bans sources
deny: dependencies ## The same, and advisories, whose list is fetched from GitHub
	@cargo deny check advisories
bench: deps ## Cold start, one change, rest, memory, churn, against a floor measured in the same run (QUICK=1: small sizes)
	@cargo build --release --workspace --bins --examples
	@$(BUILT)/release/lab bench $(if $(QUICK),--quick)
bench-bgp: deps ## The part about BGP alone: the speaker beside BIRD and GoBGP, then its tables in one process (QUICK=1: small sizes)
	@cargo build --release --workspace --bins --examples
	@$(BUILT)/release/lab bench --only bgp $(if $(QUICK),--quick); held=$$?; \
	cargo bench --quiet -p bgp --bench tables -- $(if $(QUICK),quick); exit $$held
chaos: build ## Faults of every kind under connections, as often and as long as promised (SHORT=1: a few times); an hour and more
	@KUBE_ROUTER_LAB_TIMEOUT=7200 $(LAB) chaos $(if $(SHORT),--short)

##@ Other
.PHONY: clean help
clean: ## Remove what builds and labs leave behind
	@if [ -x $(LAB) ]; then $(LAB) clean; fi
	@cargo clean
	@rm -rf .cache
help:
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
