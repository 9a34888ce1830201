"""The report in a real browser: nothing runs over the page, asks for anything, fails, or is hard to read."""

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
POLICY = "default-src 'none';"
LISTEN = """<script>
const errors = [];
addEventListener("error", e => errors.push(String(e.message || e.target.outerHTML)), true);
addEventListener("securitypolicyviolation", e => errors.push("blocked " + e.blockedURI));
console.error = console.warn = (...all) => errors.push(all.join(" "));
</script>"""
CHECK = """<script>
function parts(text) {
  const found = text.match(/[0-9.]+/g).map(Number);
  return [found[0], found[1], found[2], found.length > 3 ? found[3] : 1];
}
function over(top, below) { return top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3])); }
function behind(element) {
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.unshift(parts(getComputedStyle(one).backgroundColor));
  return layers.reduce((below, top) => over(top, below), [255, 255, 255]);
}
function light(colour) {
  const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(element) {
  const style = getComputedStyle(element), ground = behind(element);
  const ink = over(parts(element.ownerSVGElement ? style.fill : style.color), ground);
  const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
addEventListener("load", () => setTimeout(() => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), weak = [];
  let seen = 0;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.matches("script, style, title")) continue;
    seen += 1;
    if (contrast(element) < 4.5) weak.push(contrast(element).toFixed(2) + " " + texts.currentNode.data.trim());
  }
  const pictures = [...document.querySelectorAll("img, svg")];
  const silent = pictures.filter(one => !one.closest("[aria-hidden=true]") &&
    !(one.getAttribute("alt") || one.getAttribute("aria-label") || "").trim());
  const broken = [...document.images].filter(one => !one.naturalWidth);
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map(one => Number(one.tagName[1]));
  parent.postMessage(JSON.stringify({
    errors, seen, weak, levels, width: innerWidth, needed: document.scrollingElement.scrollWidth,
    pictures: pictures.length, silent: silent.length, broken: broken.length,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    cut: [...document.querySelectorAll(".results")]
      .filter(one => one.scrollWidth > one.parentElement.clientWidth).length,
    requests: performance.getEntriesByType("resource").map(one => one.name),
  }), "*");
}, 0));
</script>"""

FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><pre id="checked"></pre>
<script>addEventListener("message", e => document.getElementById("checked").textContent = e.data);</script>
<iframe src="checked.html" style="width: {width}px; height: 900px; border: 0"></iframe>"""  # a window is not so narrow


@pytest.fixture
def opened(tmp_path):
    """Open a page in the browser: what the check in it found."""

    def checked(text, width, dark):
        assert POLICY in text
        page = tmp_path / "checked.html"
        allowed = text.replace(POLICY, f"{POLICY} script-src 'unsafe-inline';")
        page.write_text(allowed.replace("<title>", f"{LISTEN}<title>", 1).replace("</body>", f"{CHECK}</body>"))
        frame = tmp_path / "frame.html"
        frame.write_text(FRAME.format(width=width))
        done = subprocess.run(
            [
                str(BROWSER),
                *("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"),
                *("--window-size=1400,1000", f"--blink-settings=preferredColorScheme={0 if dark else 1}"),
                *("--virtual-time-budget=10000", "--dump-dom", frame.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )
        found = re.search(r'<pre id="checked">(.+?)</pre>', done.stdout, re.DOTALL)
        assert found, done.stderr[-2000:]
        return json.loads(html.unescape(found[1]))

    return checked


pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH")


def test_the_check_finds_what_is_wrong(opened):
    faults = (
        '<p style="color: #888">pale</p><svg width="9" height="9"></svg><div style="width: 2000px">wide</div>'
        '<img src="http://192.0.2.1/x.png" alt="elsewhere">'
    )
    page = f"""<html><head><meta http-equiv="Content-Security-Policy" content="{POLICY} img-src data:; style-src
        'unsafe-inline'"><title>x</title></head><body>{faults}</body></html>"""
    found = opened(page, 390, dark=False)
    assert [text.split()[1] for text in found["weak"]] == ["pale"]
    assert found["needed"] >= 2000
    assert found["silent"] == found["broken"] == 1
    assert any("blocked http://192.0.2.1" in text for text in found["errors"])


def test_the_report_is_right_at_both_widths_and_in_both_schemes(run, searched, former, told, opened):
    runs = [run, searched, *map(former, ("dm", "replay", "search", "jpeg-random"))]
    (run / "env.json").write_text("{")  # so that something lacks
    (former("kmeans", '<b>k & "means"') / "set.safetensors").unlink()
    text, _ = told(*runs, run.parent / '<b>k & "means"')
    for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
        found = opened(text, width, dark)
        assert (found["width"], found["dark"]) == (width, dark)
        assert found["needed"] <= width
        assert width > 1000 or found["cut"] == 0  # where the page is narrow, the rows of tables are blocks
        assert found["errors"] == []
        assert found["requests"] == []
        assert found["weak"] == []
        assert found["seen"] > 500
        assert found["pictures"] > 40
        assert found["silent"] == found["broken"] == 0
        assert found["levels"].count(1) == 1
        assert all(b - a <= 1 for a, b in zip(found["levels"], found["levels"][1:], strict=False))
