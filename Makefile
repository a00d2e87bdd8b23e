# Every target installs what it needs. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
RUN := tools/run
STAGED := tools/staged
# The environments of nox are in the cache, one set for each checkout and set of requirements.
NOX := $(STAGED) bash -c 'nox --reuse-existing-virtualenvs --no-install --envdir "$${KATA_TREE/tree-/nox-}" --session "$$@"' nox
PYTHON_VERSION := $$(python -c "import sys; print(*sys.version_info[:2], sep=chr(46))")

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Move a throw-away cluster to Kata while builds run. DEMO_FAULT=failed-starts shows a rollback.
	$(RUN) python -m lab demo --fault "$(DEMO_FAULT)"

.PHONY: e2e
e2e: ## Builds on a virtual machine that site made a Kata node, end to end. E2E_VARS=FILE overrides variables.
	[ -n "$(KATA_NODE_INVENTORY)" ] || $(RUN) tools/machine
	$(RUN) python -m lab e2e --variables "$(E2E_VARS)"

.PHONY: test
test: ## Everything that needs no VM: integration on a real API server, beside it lints, sanity, units, docs and build.
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line integration lint sanity units docs build
	@echo "==> make test passed"

.PHONY: molecule
molecule: ## molecule test on a virtual machine: roles, reboot, removal; then tests/node on its disks.
	$(RUN) tools/molecule

.PHONY: lint
lint: ## Style, types and words: antsibull-nox, mypy, ansible-lint (production), shellcheck, argument specs against defaults, changelog.
	$(RUN) python tools/lint_roles.py
	$(RUN) tools/lint_shell
	$(RUN) mypy
	$(RUN) bash -c 'MYPYPATH=$$KATA_TREE mypy -p ansible_collections.screwdriver.kata.plugins'
	$(NOX) formatters codeqa yamllint license-check extra-checks
	# antsibull-docs takes its own temporary directory for a link where the random name ends in "_", so a failure counts the second time.
	$(NOX) docs-check || $(NOX) docs-check
	$(STAGED) ansible-lint --strict --offline --profile production
	$(STAGED) antsibull-changelog lint
	$(RUN) zizmor --offline --quiet .github
	$(RUN) codespell

.PHONY: sanity
sanity: ## ansible-test sanity, on what the collection's archive has.
	$(STAGED) bash -c 'ansible-test sanity --local --color no --python "$(PYTHON_VERSION)" changelogs/ meta/ playbooks/ plugins/ roles/'

.PHONY: units
units: ## ansible-test units.
	$(STAGED) bash -c 'ansible-test units --local --color no --python "$(PYTHON_VERSION)"'

.PHONY: integration
integration: ## Integration tests against the lab's API server and Screwdriver's npm router.
	$(RUN) python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15 tests/integration -m "not faults"

.PHONY: faults
faults: ## Fault injection during rollouts, on the lab. Takes about twenty minutes.
	$(RUN) python -m pytest --durations 10 tests/integration -m faults

.PHONY: nodes
nodes: ## Faults and bad input of the node roles, in systemd containers. Needs root.
	$(RUN) python -m pytest -rs --durations 10 tests/node

.PHONY: docs
docs: ## Build the documentation site into docs/build.
	$(RUN) tools/docs

.PHONY: transcript
transcript: ## Record the demo from an empty directory as a page of the documentation.
	$(RUN) tools/transcript

.PHONY: build
build: ## Build the collection's archive, check it as Galaxy does (galaxy-importer), and install it.
	$(STAGED) ansible-galaxy collection build --force --output-path "$(CURDIR)/dist"
	$(NOX) build-import-check 2>&1 | tools/no_warnings
	$(RUN) bash -c 'ansible-galaxy collection install --force --no-deps --offline --collections-path "$$KATA_CACHE/installed" \
	  dist/screwdriver-kata-*.tar.gz'

.PHONY: bench
bench: ## Measure: node_pool beside a loop over kubernetes.core.k8s and kubectl label, on 1,000 and 5,000 nodes.
	$(RUN) python -m benchmarks.node_pool

.PHONY: bench-node
bench-node: ## Measure: seconds, tasks and bytes of the first and the second run of the node roles. Needs root.
	$(RUN) python -m benchmarks.node

.PHONY: lab-up lab-down
lab-up: ## Start the lab, a throw-away cluster on loopback.
	$(RUN) python -m lab up
lab-down: ## Stop the lab and remove its data.
	$(RUN) python -m lab down
