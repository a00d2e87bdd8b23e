from __future__ import annotations

import copy

import pytest

pytest.importorskip("yaml")

from ansible_collections.screwdriver.kata.plugins.module_utils import _secrets as secrets
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import entry
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


LIST = """executor:
  a:
    exclusions:
      - rhel6   # glibc 2.12
      # 32-bit tools, ticket 17
      - 'i386'
      # until May
      - el5 # old
    # the share
    weightage: 5
"""
ITEMS: dict[str, tuple[list[str], str]] = {
    "one is added": (["rhel6", "i386", "el5", "centos:6"], LIST.replace("# old\n", '# old\n      - "centos:6"\n')),
    "two are added": (["rhel6", "i386", "el5", "b", "c d"], LIST.replace("# old\n", '# old\n      - b\n      - "c d"\n')),
    "the first one goes": (["i386", "el5"], LIST.replace("      - rhel6   # glibc 2.12\n", "")),
    "the last one goes": (["rhel6", "i386"], LIST.replace("      - el5 # old\n", "")),
    "one goes and one is added": (["rhel6", "el5", "b"], LIST.replace("      - 'i386'\n", "").replace("# old\n", "# old\n      - b\n")),
    "the last one is another": (
        ["rhel6", "i386", "b"],
        LIST.replace("      # until May\n      - el5 # old\n", "      - b\n      # until May\n"),
    ),
    "they change places": (
        ["i386", "rhel6"],
        "executor:\n  a:\n    exclusions:\n      # 32-bit tools, ticket 17\n      - 'i386'\n      - rhel6\n"
        "      # until May\n    # the share\n    weightage: 5\n",
    ),
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ITEMS)
def test_comments_in_a_list_stay_when_its_items_change(name: str, ends: str) -> None:
    items, expected = ITEMS[name]
    document = Document(LIST.replace("\n", ends), "text")
    document.merge({"executor": {"a": {"exclusions": items}}})
    assert document.text() == expected.replace("\n", ends)


OTHER_LISTS = {
    "the last line, without an end": "executor:\n  a:\n    exclusions:\n    - x # one\n    - y",
    "at the end of a map": "executor:\n  a:\n    exclusions:\n    - x # one\n    - y # two\nrest: 1\n",
    "several lines": "executor:\n  a:\n    exclusions:\n    - x\n    - |\n      y\n    -\n    - z\n",
    "anchors": "executor:\n  a:\n    exclusions:\n    - &x x\n    - y\n    b: *x\n",
    "lists and maps": "executor:\n  a:\n    exclusions:\n    - - x\n    - y: 1\n",
    "flow": "executor:\n  a:\n    exclusions: [x, y]\n",
}


@pytest.mark.parametrize("name", OTHER_LISTS)
@pytest.mark.parametrize("items", [["x", "z"], ["y", "z"], ["z"], ["x", "y", "z"], ["y"], ["x"], []])
def test_a_list_is_changed_however_it_is_written(name: str, items: list[str]) -> None:
    document = Document(OTHER_LISTS[name], "text")
    kept = document.plain()["executor"]["a"].get("b")
    document.merge({"executor": {"a": {"exclusions": items, "weightage": 5}}})
    after = Document(document.text(), "text").plain()["executor"]["a"]
    assert (after["exclusions"], after["weightage"], after.get("b")) == (items, 5, kept)
    assert ("# one" in document.text()) is ("x" in items and "# one" in OTHER_LISTS[name])


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


MERGED = """x-base: &base
  pluginName: k8s
  options: &opts
    kubernetes: &kube
      host: kubernetes.default
    prefix: ""
executor:
  plugin: k8s
  k8s:
    <<: *base
    weightage: 100
  k8s-kata:
    <<: *base
    weightage: 0
"""
SHARED = {
    "merge key": MERGED,
    "alias of an entry": "executor:\n  k8s: &k8s\n    weightage: 100\n    options: {kubernetes: {host: h}}\n  k8s-kata: *k8s\n",
    "alias of options": "executor:\n  k8s:\n    options: &o {kubernetes: {host: h}}\n  k8s-kata:\n    options: *o\n",
    "merge of a sibling": (
        "executor:\n  k8s-kata: &kata\n    pluginName: k8s\n    options: {prefix: x}\n  k8s:\n    <<: *kata\n    weightage: 7\n"
    ),
    "merge of two": "a: &a {options: {prefix: x}}\nb: &b {weightage: 3}\nexecutor:\n  k8s: {<<: [*a, *b]}\n  k8s-kata: {<<: [*b, *a]}\n",
    "alias of a number": "executor:\n  k8s: {weightage: &w 50}\n  k8s-kata: {weightage: *w}\n",
    "anchored list": "executor:\n  k8s-kata:\n    exclusions: &x\n    - a\n    - b\n  k8s:\n    exclusions: *x\n",
    "anchor around the section": "executor: &e\n  k8s: {weightage: 1}\n  k8s-kata: {weightage: 2}\nbackup: *e\n",
}


@pytest.mark.parametrize("name", SHARED)
def test_what_shares_text_with_a_change_keeps_its_value(name: str) -> None:
    document = Document(SHARED[name], "text")
    before = copy.deepcopy(document.plain())
    kata = {"weightage": 10, "exclusions": ["rhel6"], "options": {"kubernetes": {"runtimeClass": "kata"}}}
    document.merge({"executor": {"k8s-kata": kata}})
    after = Document(document.text(), "text").plain()
    assert after["executor"]["k8s-kata"]["options"]["kubernetes"]["runtimeClass"] == "kata"
    assert after["executor"]["k8s-kata"]["weightage"] == 10
    after["executor"]["k8s-kata"] = before["executor"]["k8s-kata"]
    assert after == before


KEPT_BYTES = {
    "CRLF": "# head\r\nexecutor:\r\n  a: 1\r\n  b: 2 # two\r\nz: 1\r\n",
    "byte order mark": "\ufeffexecutor:\n  a: 1\n",
    "directive": "%YAML 1.1\n---\nexecutor:\n  a: 1\nodd: [on, 0o17, 1_000, 12:30:45, ~, .inf]\n...\n",
    "long line": f"executor:\n  a: 1\nlong: {'word ' * 2000}end\n",
    "odd layout": "executor:   {  a : 1 ,b: [ 1,2 ]  }   # end\n\n\n\nz:    'it''s'\n",
    "no end of line": "executor:\n  b: |\n    text\n  a: 1",
    "wide indentation": "executor:\n        a: 1\n        c:\n                - x\n",
}


@pytest.mark.parametrize("name", KEPT_BYTES)
def test_only_the_changed_bytes_change(name: str) -> None:
    text = KEPT_BYTES[name]
    document = Document(text, "text")
    document.merge({"executor": {"a": 22}})
    assert document.text() == text.replace("a: 1", "a: 22").replace("a : 1", "a : 22")


APART = "and not the worker's config: keep that in a file of its own, and name it. Nothing was changed."
NOT_READ = "and not at its top, where the worker reads it: name a file of the worker's config alone. Nothing was changed."
REFUSED = {
    "a: 1\na: 2\n": "text has the key a twice in one map. Nothing was changed.",
    "executor:\n  k8s:\n    x: 1\n    x: 2\n": "text has the key x twice in one map. Nothing was changed.",
    "a:\n\tb: 1\n": "text is not valid YAML: found character '\\t' that cannot start any token (line 2, column 1). Nothing was changed.",
    "a: 1\n---\nb: 1\n": "text has more than one YAML document, and the worker reads a single one. Nothing was changed.",
    "a: *b\n": "text uses the alias *b, which no anchor defines. Nothing was changed.",
    "a: {<<: 1}\n": "text merges something that is not a map with <<. Nothing was changed.",
    "a: x\u2028y\n": "text has a U+0085, U+2028 or U+2029 character, which YAML parsers read differently: remove it. Nothing was changed.",
    "- a\n": "text holds a list and not a map with the key executor. Nothing was changed.",
    "apiVersion: v1\nkind: ConfigMap\nexecutor: {}\n": f"text is a manifest of kind ConfigMap {APART}",
    "worker:\n  config:\n    executor:\n      plugin: k8s-vm\n": f"text has its executor section at worker.config.executor {NOT_READ}",
    "worker:\n- executor:\n    vm: {pluginName: k8s-vm}\n": f"text has its executor section at worker.0.executor {NOT_READ}",
    "values:\n  config: |\n    # ours\n    executor:\n      plugin: k8s\n": f"text has its executor section at values.config {NOT_READ}",
    "a: !!js/function 'x'\n": (
        "text uses the tag tag:yaml.org,2002:js/function (line 1), which the worker's parser does not take there. Nothing was changed."
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_worker_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(UserError) as refused:
        Document(text, "text")
    assert str(refused.value) == REFUSED[text]


@pytest.mark.parametrize(
    "text",
    [
        "rabbitmq: {host: x}\n",
        "kind: x\n",
        "note: An executor, such as executor.k8s\nqueue: {executor: threads}\n",
        "executor: {}\nold: {executor: {plugin: k8s}}\n",
    ],
)
def test_a_config_without_an_executor_section_is_taken(text: str) -> None:
    Document(text, "text")


def test_json_is_not_yaml() -> None:
    with pytest.raises(UserError) as refused:
        Document('{"executor": {"a" 1}}', "text", is_json=True)
    assert str(refused.value) == "text is not valid JSON: unexpected '1' (line 1, column 19). Nothing was changed."


LEGACY = {
    "weightage": 100,
    "options": {
        "prefix": "x-",
        "sdHabEnabled": "false",
        "kubernetes": {
            "privileged": True,
            "jobsNamespace": "builds",
            "podLabels": {"a": "b"},
            "annotations": {"io.kubernetes.cri.untrusted-workload": "true", "keep": "it"},
            "volumeMounts": [{"name": "d", "path": "/var/run/docker.sock"}, {"name": "ca", "path": "/etc/ssl/corp"}],
            "resources": {"disk": {"space": "screwdriver.cd/disk", "speed": "screwdriver.cd/diskSpeed"}},
            "nodeSelectors": {"dedicated": "legacy"},
        },
    },
}


def test_a_new_entry_is_the_legacy_one_without_what_is_unsafe() -> None:
    made = entry.complete("k8s-kata", {"options": {"kubernetes": {"runtimeClass": "kata"}}}, LEGACY)
    kubernetes = made["options"]["kubernetes"]
    assert made["weightage"] == 0
    assert made["options"]["prefix"] == "x-"
    assert made["options"]["sdHabEnabled"] == "false"
    assert kubernetes["privileged"] is False
    assert kubernetes["podLabels"] == {"a": "b"}
    assert kubernetes["annotations"] == {"keep": "it"}
    assert kubernetes["volumeMounts"] == [{"name": "ca", "path": "/etc/ssl/corp"}]
    assert kubernetes["resources"]["disk"] == {"speed": "screwdriver.cd/diskSpeed"}
    assert "nodeSelectors" not in kubernetes
    assert [(item.code, item.path) for item in entry.left_out(LEGACY, made, "k8s")] == [
        ("option_not_carried", "options.kubernetes.privileged"),
        ("option_not_carried", "options.kubernetes.rootlessBuildkitFeatureEnabled"),
        ("option_not_carried", "options.kubernetes.volumeMounts[0]"),
        ("option_not_carried", "options.kubernetes.annotations"),
    ]
    assert [item.code for item in entry.left_out(LEGACY, made, "k8s-vm")][0] == "disk_space_ignored"


MASKED = {
    "token": ({"token": "x"}, {"token": "********"}),
    "nested": ({"a": [{"password": "x", "user": "u"}]}, {"a": [{"password": "********", "user": "u"}]}),
    "URI": ("amqp://u:p@mq/x", "amqp://********@mq/x"),
    "jwt": ("a eyJhbGciOi.eyJzdWIi.c-g b", "a ******** b"),
    "not a secret": (
        {"automountServiceAccountToken": "true", "imagePullSecretName": "reg"},
        {"automountServiceAccountToken": "true", "imagePullSecretName": "reg"},
    ),
    "references": ({"buildSecrets": [{"secret_key": "private"}]}, {"buildSecrets": [{"secret_key": "private"}]}),
}


@pytest.mark.parametrize("name", MASKED)
def test_secrets_are_masked(name: str) -> None:
    value, expected = MASKED[name]
    assert secrets.masked(value) == expected


MASKED_TEXTS: dict[str, tuple[str, str]] = {
    "a line of its own": ("a:\n  token: abc # why\n  weightage: 5\n", "a:\n  token: ******** # why\n  weightage: 5\n"),
    "compact JSON": (
        '{"password":"s3cr\\"et-123","token":12345678,"secret":"abc12","w":1}',
        '{"password":********,"token":********,"secret":********,"w":1}',
    ),
    "flow": ("a: {password: hunter2, w: 1, key: }\n", "a: {password: ********, w: 1, key: }\n"),
    "a list": ("tokens: [a, 'b']\n", "tokens: [********, ********]\n"),
    "a map": ("secret: {name: a, password: b}\n", "secret: {name: a, password: ********}\n"),
    "a literal": (
        "a:\n  private_key: |\n    one\n\n    two: 2\n  w: 1\n",
        "a:\n  private_key: ********\n    ********\n\n    ********\n  w: 1\n",
    ),
    "several lines": ("token: 'a\n\n  b'\nw: 1\n", "token: ********\n\n  ********\nw: 1\n"),
    "an explicit key": ("? token\n: abc\n", "? token\n: ********\n"),
    "an anchor": ("x: &x abc\ntoken: *x\n", "x: &x ********\ntoken: *x\n"),
    "a merge key": ("x: &x {token: abc, w: 1}\na:\n  <<: *x\n", "x: &x {token: ********, w: 1}\na:\n  <<: *x\n"),
    "a URI": ("url: amqp://user:hunter2@mq/x # main\n", "url: amqp://********@mq/x # main\n"),
    "an escaped URI": ('{"url":"amqp:\\/\\/user:hunter2@mq"}', '{"url":********}'),
    "switches": ("token: ''\nsecret: true\npassword: ~\n", "token: ''\nsecret: true\npassword: ~\n"),
    "a byte order mark": ("\ufefftoken: abc\n", "\ufefftoken: ********\n"),
    "a number that is none": ("a: .nan\n", "a: .nan\n"),
    "nothing": ("# none\n", "# none\n"),
}


@pytest.mark.parametrize("name", MASKED_TEXTS)
def test_a_text_is_masked_in_its_lines(name: str) -> None:
    text, expected = MASKED_TEXTS[name]
    masked = Document(text, "text", is_json=text.startswith("{")).masked()
    assert masked == expected
    assert masked.count("\n") == text.count("\n")
