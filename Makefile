# ttn-gateway-exporter. `make` lists the targets; nothing here installs anything outside of the
# user's own folders: cargo's, rustup's, target/, dist/ and .tools/ (a Python virtual environment).
# It needs GNU make: `gmake` on FreeBSD.

NAME    := ttn-gateway-exporter
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ARCHS   := amd64 arm64 armv7 armv6
# Where developers sit, besides Linux: compiled and linked here, and run there.
OTHERS  := aarch64-apple-darwin x86_64-unknown-freebsd

# What the releases are built with. Zig is the C compiler and the linker for every target; 0.16
# and newer bring an allocator of their own that keeps its memory, so it stays at 0.15. `deflate` is
# what compresses the archives and packages to the same bytes on every machine.
TOOLCHAIN     := 1.99.1
TOOL_PACKAGES := cargo-zigbuild==0.24.0 ziglang==0.15.2 deflate==0.9.0
# A file that is there once these very packages are installed.
empty :=
space := $(empty) $(empty)
TOOLS := .tools/installed-$(subst ==,-,$(subst $(space),_,$(TOOL_PACKAGES)))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo run test golden screenshots torture bench bench-quick fuzz size clean dist \
        image tools check-dist dist-sbom $(ARCHS:%=dist-%) $(ARCHS:%=test-%) $(OTHERS:%=build-%)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z$$].*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo "  make dist-ARCH      One of them; make test-ARCH tests it. ARCH: $(ARCHS)"
	@echo "  make build-TARGET   Compiles for macOS or FreeBSD. TARGET: $(OTHERS)"

# --- Trying and using it ------------------------------------------------------------------------

demo: ## Start a fake Things Stack and the exporter on :9714, without an account
	cargo build --bin $(NAME) --example fake-things-stack
	@exec tests/demo.sh target/debug/examples/fake-things-stack target/debug/$(NAME)

run: ## Start the exporter on :9714 with the API key of TTN_API_KEY (ARGS="--verbose")
	@test -n "$$TTN_API_KEY$$TTN_API_KEY_FILE" || \
	    { echo "make run: set TTN_API_KEY to an API key of The Things Stack first" >&2; exit 1; }
	cargo run --release --bin $(NAME) -- $(ARGS)

# --- Tests --------------------------------------------------------------------------------------

test: ## Format, lints and all tests; says what a missing tool kept from running
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked
	@tests/missing-tools.sh

golden: ## Write the golden files anew; look at the difference before you commit it
	UPDATE_GOLDEN=1 cargo test golden

screenshots: ## Pictures of the status page in target/screenshots, and those of README
	SCREENSHOTS=$(CURDIR)/target/screenshots cargo test --test it browser -- --nocapture
	cp target/screenshots/page-1280-light-5.png target/screenshots/page-1280-dark-5.png .github/

torture: ## Every attack at full length against the release binary (about half an hour)
	TORTURE=full cargo test --release --test torture -- --nocapture --test-threads=1

FUZZ_SECONDS := 600
fuzz: ## The property tests, ten minutes each (FUZZ_SECONDS=600)
	FUZZ_SECONDS=$(FUZZ_SECONDS) cargo test --release -- property properties fuzz --nocapture

bench: ## What a scrape costs: the whole table
	cargo bench --bench bench

bench-quick: ## The same for a few sizes, in less than a minute
	cargo bench --bench bench -- --quick

size: dist-amd64 ## Bytes per target and crate, number of crates, resident memory
	@src/package/size.sh $(VERSION)

# --- Releases -----------------------------------------------------------------------------------
# The standard library is built along (build-std) for two reasons: rustup's musl has a 32-bit time
# on 32-bit ARM, so that the clock panics in 2038; and std's backtraces are 200 KB that nobody
# reads on a Pi. A stable toolchain does that only with RUSTC_BOOTSTRAP. The switch for the 64-bit
# time was renamed twice, so each of its names is set.

target_amd64 := x86_64-unknown-linux-musl
target_arm64 := aarch64-unknown-linux-musl
target_armv7 := armv7-unknown-linux-musleabihf
target_armv6 := arm-unknown-linux-musleabihf

TIME64 := --cfg=libc_unstable_musl_v1_2_3 --cfg=libc_unstable_musl_v1_2
# No path of the machine that builds may get into the binary; the last that matches counts.
SYSROOT  = $(shell RUSTUP_TOOLCHAIN=$(TOOLCHAIN) rustc --print sysroot)
CARGO    = $(or $(CARGO_HOME),$(HOME)/.cargo)
PREFIXES = $(CURDIR)=. $(CARGO)=cargo $(SYSROOT)=rust $(SYSROOT)/lib/rustlib/src/rust/library/=std/ \
           $(foreach registry,$(shell ls -d $(CARGO)/registry/src/*),$(registry)/=)
REMAP    = $(PREFIXES:%=--remap-path-prefix=%)

# zig's musl is linked instead of rustup's (link-self-contained=no), since rustup has none for ARM.
DIST_ENV = PATH="$(CURDIR)/.tools/bin:$$PATH" \
           CARGO_ZIGBUILD_PYTHON_PATH="$(CURDIR)/.tools/bin/python3" \
           CARGO_TARGET_DIR=target/dist \
           RUSTUP_TOOLCHAIN=$(TOOLCHAIN) RUSTC_BOOTSTRAP=1 RUST_LIBC_UNSTABLE_MUSL_V1_2_3=1 \
           RUSTFLAGS="-C target-feature=+crt-static -C link-self-contained=no $(TIME64) $(REMAP)" \
           TTN_REVISION=$(REVISION)
# On 32-bit ARM the program would be 1 % larger than it may be: there it is compiled for size alone.
SIZE_armv7 := CARGO_PROFILE_RELEASE_OPT_LEVEL=z
SIZE_armv6 := CARGO_PROFILE_RELEASE_OPT_LEVEL=z
BUILD_STD := -Z build-std=std,panic_unwind -Z build-std-features=panic-unwind,optimize_for_size

# The commit, and its time: two builds of one commit are equal. Not in git: the time is 2026.
REVISION := $(or $(shell git rev-parse --short=12 HEAD 2>/dev/null),unknown)
EPOCH    := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),1767225600)

dist: clean-dist $(ARCHS:%=dist-%) ## Binary, .tar.gz and .deb of every target, bill of materials, in dist/
	@echo "Checked by: cd dist && sha256sum --check SHA256SUMS"

image: $(ARCHS:%=dist-%) ## Container images of all targets (docker, podman or buildah)
	@src/package/image.sh $(VERSION) $(ARCHS)

# One for all targets, and beside every release.
dist-sbom: check-dist
	@RUSTUP_TOOLCHAIN=$(TOOLCHAIN) python3 -B src/package/sbom.py --toolchain $(TOOLCHAIN) \
	    --targets $(foreach arch,$(ARCHS),$(target_$(arch))) --epoch $(EPOCH) --dist dist

$(ARCHS:%=dist-%): dist-%: dist-sbom $(TOOLS)
	$(DIST_ENV) $(SIZE_$*) cargo zigbuild --locked --release --bin $(NAME) --target $(target_$*) $(BUILD_STD)
	@.tools/bin/python3 -B src/package/package.py --arch $* --version $(VERSION) --revision $(REVISION) \
	    --epoch $(EPOCH) --binary target/dist/$(target_$*)/release/$(NAME) --dist dist

check-dist:
	@src/package/check-tools.sh $(TOOLCHAIN)
	@cargo fetch --locked --quiet

$(TOOLS): | check-dist
	python3 -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check $(TOOL_PACKAGES)
	touch $@

tools: $(TOOLS) ## What make dist needs: Rust by rustup, zig and the rest in .tools/

# The program, the tests and the demo for macOS and FreeBSD. The standard library is compiled too,
# since rustup does not have it for every target; a target folder of its own keeps the rest apart.
$(OTHERS:%=build-%): build-%: check-dist $(TOOLS)
	PATH="$(CURDIR)/.tools/bin:$$PATH" CARGO_ZIGBUILD_PYTHON_PATH="$(CURDIR)/.tools/bin/python3" \
	    CARGO_TARGET_DIR=target/others CARGO_PROFILE_DEV_DEBUG=0 \
	    RUSTUP_TOOLCHAIN=$(TOOLCHAIN) RUSTC_BOOTSTRAP=1 \
	    cargo zigbuild --locked --all-targets --target $* -Z build-std=std,panic_unwind

# The black-box tests against a release, on the oldest processor that it is for.
qemu = $(or $(shell command -v qemu-$(1)-static),qemu-$(1))
runner_amd64 =
runner_arm64 = $(call qemu,aarch64) -cpu cortex-a53
runner_armv7 = $(call qemu,arm) -cpu cortex-a7
runner_armv6 = $(call qemu,arm) -cpu arm1176

$(ARCHS:%=test-%): test-%: dist-%
	tests/package/binary.sh dist/$(NAME)-$(VERSION)-linux-$* $* "$(runner_$*)"
	TTN_EXPORTER_BINARY=$(CURDIR)/dist/$(NAME)-$(VERSION)-linux-$* \
	    TTN_EXPORTER_RUNNER="$(runner_$*)" cargo test --locked --test it

clean: clean-dist ## Remove what was built (the tools in .tools stay)
	cargo clean

.PHONY: clean-dist
clean-dist:
	rm -rf dist
