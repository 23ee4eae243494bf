.PHONY: fmt lint build test vm-test demo bench corpus fuzz setup packages image

# A time that has passed wherever the program runs. That of the commit: the same commit gives the same program.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

RELEASE = $(shell rustc --print host-tuple)/release

# Debian packages, containerd 1.6, 1.7 and 2, images: what is missing is fetched and built, once.
setup:
	@tests/setup/install
	@tests/setup/images
	@tests/setup/debian-root
	@tests/setup/kubernetes

fmt:
	cargo fmt

lint: setup
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# The static target gets its own folder from cargo; the programs are put where people look for them.
build: setup
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) cargo build --release
	@# The resident shim must stay small: nothing that only `assay` needs may end up in it.
	@! grep --text --only-matching --max-count=1 -e tonic -e aws_lc -e reqwest -e miette -e opentelemetry -e sigstore target/$(RELEASE)/containerd-shim-assay-v1
	@mkdir -p target/release
	@cp -f --preserve=timestamps target/$(RELEASE)/assay target/$(RELEASE)/containerd-shim-assay-v1 target/release/

test: lint
	cargo test --no-fail-fast

# A Debian and an RPM package, what is in them and their digests, in target/packages: see docs/packages.md. Needs nothing
# of what the tests need.
packages:
	@packaging/tools
	PATH=$(CURDIR)/target/tools/cargo-auditable/bin:$$PATH SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) \
	  cargo auditable build --release --locked
	packaging/build target/$(RELEASE) target/packages
	packaging/describe target/packages

# The installer's image for Kubernetes, in target/image: see docs/kubernetes.md.
image: packages
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) packaging/image target/packages target/image

# Seconds for each target of `make fuzz`.
SECONDS ?= 60

# Only the checks that need another kernel than this machine's.
vm-test: setup
	cargo test --test vm
	cargo test --test view linux_6

demo: build
	@tests/demo/run target/release

bench: setup
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) cargo bench --bench shim --bench pods --bench agent --bench verify --bench view \
	  --bench syscalls --bench hostile

# Real images with real workloads under the stock runtime and under Assay: see docs/corpus.md. `make corpus
# CORPUS="nginx redis --trace"` does a part of it.
corpus: setup
	@tests/setup/corpus
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) cargo test --release --test corpus -- $(CORPUS)

# Every parser of what others wrote, for SECONDS each; an input that breaks one ends it.
fuzz: setup
	fuzz/run $(SECONDS)
