fmt:
	cargo fmt
.PHONY: fmt
