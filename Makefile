# Every target installs what it needs. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
RUN := tools/run
STAGED := tools/staged
# The environments of nox are in the cache, one set for each checkout and set of requirements.
NOX := $(STAGED) bash -c 'nox --reuse-existing-virtualenvs --no-install --envdir "$${KATA_TREE/tree-/nox-}" --session "$$@"' nox
# The lab's programs, which are Go, collect garbage less often.
LAB := GOGC=400 $(RUN)
# Three at a time also on two processors: part of the time is a wait for builds.
PYTEST := $(LAB) python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 15
PYTHON_VERSION := $$(python -c "import sys; print(*sys.version_info[:2], sep=chr(46))")

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Move a simulated cluster to Kata. DEMO_FAULT=failed-starts.
	$(LAB) python -m lab demo --fault "$(DEMO_FAULT)"

.PHONY: e2e
e2e: ## Roll Kata out with a virtual machine as node. E2E_VARS=FILE.
	[ -n "$(KATA_NODE_INVENTORY)" ] || $(RUN) tools/machine
	$(RUN) python -m lab e2e --variables "$(E2E_VARS)"

.PHONY: test
test: ## Run what each change must pass.
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line integration lint sanity units docs build
	@echo "==> make test passed"

.PHONY: molecule
molecule: ## Test the roles on a virtual machine: install, reboot, remove.
	$(RUN) tools/molecule

.PHONY: lint
lint: ## Check style, types, spelling, workflows and argument specs.
	$(RUN) python tools/lint_roles.py
	$(RUN) tools/lint_shell
	$(RUN) mypy
	$(RUN) bash -c 'MYPYPATH=$$KATA_TREE mypy -p ansible_collections.screwdriver.kata.plugins'
	$(NOX) formatters codeqa yamllint license-check extra-checks
	# antsibull-docs takes its own temporary directory for a link where the random name ends in "_", so a failure counts the second time.
	$(NOX) docs-check || $(NOX) docs-check
	$(STAGED) ansible-lint --strict --offline --profile production
	$(STAGED) antsibull-changelog lint
	$(RUN) tools/lint_workflows
	$(RUN) codespell

.PHONY: sanity
sanity: ## Run ansible-test sanity.
	$(STAGED) bash -c 'ansible-test sanity --local --color no --python "$(PYTHON_VERSION)" changelogs/ meta/ playbooks/ plugins/ roles/'

.PHONY: units
units: ## Run the unit tests.
	$(RUN) python -m pytest tests/unit

.PHONY: ansible-units
ansible-units: ## Run the unit tests with ansible-test, a process for each.
	$(STAGED) bash -c 'ansible-test units --local --color no --python "$(PYTHON_VERSION)"'

.PHONY: integration
integration: ## Test against the lab's API server and Screwdriver's router.
	$(PYTEST) tests/integration -m "not playbooks and not faults"

.PHONY: playbooks
playbooks: ## Test whole playbooks against the lab.
	$(PYTEST) tests/integration -m playbooks

.PHONY: faults
faults: ## Inject faults during rollouts; takes twenty minutes.
	$(RUN) python -m pytest --durations 10 tests/integration -m faults

.PHONY: nodes
nodes: ## Test the node roles in systemd containers, as root.
	$(RUN) python -m pytest -rs --durations 10 tests/node

.PHONY: docs
docs: ## Build the documentation site into docs/build.
	$(RUN) tools/docs

.PHONY: transcript
transcript: ## Record the demo as a page of the documentation.
	$(RUN) tools/transcript

.PHONY: build
build: ## Build the archive, check it as Galaxy does, and install it.
	$(STAGED) ansible-galaxy collection build --force --output-path "$(CURDIR)/dist"
	$(NOX) build-import-check 2>&1 | tools/no_warnings
	$(RUN) bash -c 'ansible-galaxy collection install --force --no-deps --offline --collections-path "$$KATA_CACHE/installed" \
	  dist/screwdriver-kata-*.tar.gz'

.PHONY: bench
bench: ## Measure node_pool beside kubernetes.core.k8s and kubectl.
	$(RUN) python -m benchmarks.node_pool

.PHONY: bench-node
bench-node: ## Measure first and second runs of the node roles, as root.
	$(RUN) python -m benchmarks.node

.PHONY: lab-up lab-down
lab-up: ## Start the lab, a throw-away cluster on loopback.
	$(RUN) python -m lab up
lab-down: ## Stop the lab and remove its data.
	$(RUN) python -m lab down
