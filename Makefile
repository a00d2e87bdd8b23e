# Every target sets up what it needs; nothing has to be prepared. `make help` lists them.
SHELL := bash
.DEFAULT_GOAL := help
RUN := tools/run

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
