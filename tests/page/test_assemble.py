from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from layertap.page.assemble import MODULES, as_html, imports_of, joined_script, static
from layertap.page.content import PageContent

HOSTILE = "</script><script>alert(1)</script><!--<script> \u2028 \ud800 {{STYLE}}"


def page(**facts: object) -> str:
    arrays = {"points0": np.array([[1.5, -2], [3, 4]], dtype=np.float32)}
    return as_html(PageContent(title="a <b> & c", facts=facts, arrays=arrays)).decode()


def block(text: str, name: str) -> str:
    return re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', text, re.DOTALL)[1]  # type: ignore[index]


def test_texts_come_back_as_they_are_and_never_as_markup():
    text = page(texts=[HOSTILE])
    assert json.loads(block(text, "facts"))["texts"] == [HOSTILE]
    assert text.count("<script") == 3, "facts, one array, the script"
    assert "<title>a &lt;b&gt; &amp; c</title>" in text


def test_arrays_come_back_bit_for_bit():
    text = page()
    assert json.loads(block(text, "facts"))["arrays"] == {"points0": ["f4", 2, 2]}
    assert np.frombuffer(base64.b64decode(block(text, "array-points0")), "<f4").tolist() == [1.5, -2, 3, 4]


def test_the_policy_allows_the_page_s_own_script_and_style_only():
    text = page()
    stated = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]  # type: ignore[index]
    policy = dict(part.strip().split(" ", 1) for part in stated.split(";"))
    for name, tag in (("script-src", 'script type="module"'), ("style-src", "style")):
        inline = re.search(rf"<{tag}>(.*?)</{tag.split()[0]}>", text, re.DOTALL)[1]  # type: ignore[index]
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[name] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert not re.search(r' style="| on\w+="|https?://', text)


def test_modules_stand_after_those_that_they_import():
    for number, name in enumerate(MODULES):
        assert set(imports_of(name)) <= set(MODULES[:number]), name
        assert static(f"{name}.js").count("import ") == len(imports_of(name)), name


def test_modules_share_one_scope_without_a_clash():
    declared = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", joined_script(), re.MULTILINE)
    assert [name for name in set(declared) if declared.count(name) > 1] == []
    assert not re.search(r"^(import|export) ", joined_script(), re.MULTILINE)


def test_the_script_parses(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    (tmp_path / "page.mjs").write_text(joined_script(), encoding="utf-8")
    subprocess.run([node, "--check", tmp_path / "page.mjs"], check=True)
