from __future__ import annotations

import pytest

pytest.importorskip("yaml")

from ansible_collections.screwdriver.kata.plugins.module_utils._executor.document import Document

KEPT = {
    "two spaces": "executor:\n  a:\n    x: 1\n",
    "four spaces, lists indented": "executor:\n    a:\n        - 'x'\n        - y\n    b: 1\n",
    "lists not indented": "executor:\n  a:\n  - x\n  - y\n",
    "comments everywhere": "# top\nexecutor: # one\n  # two\n  a: 1 # three\n\n  # four\n  b: 2\n# five\nrest: 3\n# six\n",
    "quotes and flow": "executor: {a: \"1\", b: 'x', c: [1, 2]}\n",
    "start mark": "---\nexecutor:\n  a: 1\n",
    "anchors": "base: &base\n  x: 1\nexecutor:\n  a:\n    <<: *base\n",
    "literal text": "executor:\n  a: |\n    one\n    two\n  b: >-\n    three\n",
    "wide": f"executor:\n  a: {'x ' * 200}y\n",
    "numbers": "executor:\n  a: 0x1F\n  b: 1.50\n  c: 1e3\n  d: 007\n",
    "no value": "executor:\n  a:\n  b: 1\n",
}


@pytest.mark.parametrize("name", KEPT)
def test_a_document_that_is_not_changed_is_written_as_it_was(name: str) -> None:
    assert Document(KEPT[name], "text").text() == KEPT[name]


APPENDED = {
    "executor:\n  a:\n    x: 1 # eol\n\n# below\nrest: 1\n": "executor:\n  a:\n    x: 1 # eol\n  n:\n    y: 2\n\n# below\nrest: 1\n",
    "executor:\n  a:\n    x: 1\n# below\nrest: 1\n": "executor:\n  a:\n    x: 1\n  n:\n    y: 2\n# below\nrest: 1\n",
    "executor:\n  a: {x: 1}\n# below\nrest: 1\n": "executor:\n  a: {x: 1}\n  n:\n    y: 2\n# below\nrest: 1\n",
    "executor:\n  a:\n  - 1 # eol\n# below\nrest: 1\n": "executor:\n  a:\n  - 1 # eol\n  n:\n    y: 2\n# below\nrest: 1\n",
    "executor:\n  a:\n  - b: 1\n    c: 2\n# below\nrest: 1\n": "executor:\n  a:\n  - b: 1\n    c: 2\n  n:\n    y: 2\n# below\nrest: 1\n",
    "executor:\n  a: 1\n# end\n": "executor:\n  a: 1\n  n:\n    y: 2\n# end\n",
    "executor:\n  a: 1": "executor:\n  a: 1\n  n:\n    y: 2\n",
    "": "executor:\n  n:\n    y: 2\n",
    "# only this\n": "# only this\nexecutor:\n  n:\n    y: 2\n",
}


@pytest.mark.parametrize("before", APPENDED)
def test_comments_stay_where_they_are_when_a_key_is_added(before: str) -> None:
    document = Document(before, "text")
    document.merge({"executor": {"n": {"y": 2}}})
    assert document.text() == APPENDED[before]


def test_what_is_equal_is_not_touched() -> None:
    text = 'executor:\n  a: "1"   # one\n  b: [1,2]\n'
    document = Document(text, "text")
    before = document.text()
    document.merge({"executor": {"a": "1", "b": [1, 2]}})
    assert document.text() == before


def test_an_equal_value_of_another_type_is_replaced() -> None:
    document = Document('executor:\n  a: "1"\n  b: true\n', "text")
    document.merge({"executor": {"a": 1, "b": 1}})
    assert document.plain() == {"executor": {"a": 1, "b": 1}}
    assert document.plain()["executor"]["b"] is not True
