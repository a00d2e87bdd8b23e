"""Sphinx settings of the documentation site; `make docs` builds it."""

project = title = html_short_title = "screwdriver.kata"
extensions = ["sphinx_antsibull_ext"]
copyright = "screwdriver.kata maintainers, GPL-3.0-or-later"  # noqa: A001
html_theme = "sphinx_ansible_theme"
html_show_sphinx = False
html_use_index = False
html_copy_source = False
highlight_language = "YAML+Jinja"
pygments_style = "ansible"
default_role = "any"
# Labels of Ansible's own site, which is not here; antsibull-docs checks our references itself.
suppress_warnings = ["ref.ref"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "topbar_links": {
        "Repository": "https://github.com/screwdriver-cd/ansible-collection-kata",
        "Screwdriver": "https://docs.screwdriver.cd",
        "Kata Containers": "https://katacontainers.io",
    },
}
