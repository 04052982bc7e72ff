#!/usr/bin/env python3
"""Goal: the status page tells what the node tells, live. Method: three real nodes, origins of this
script, and the page in headless Chromium, driven over WebDriver. The tables of the document are
compared with /members.json and /status.json while an origin fails, a node is killed, and the node
that serves the page stops and comes back.

    browser.py PROGRAM [--shots DIR] [--origins N]

Screenshots go to DIR. Prints "skipped: no browser" and succeeds where there is none."""

import argparse
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Longer than anything here takes on a loaded machine; it only bounds how long a failure takes.
DEADLINE = 180
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]
# Everything is on this machine, whatever proxy the environment names.
OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
HOSTILE = "<img src=x onerror=alert(1)>"


def wait_for(what, probe):
    """Asks `probe` again and again until its answer is true, and returns the answer."""
    end, answer = time.monotonic() + DEADLINE, None
    while time.monotonic() < end:
        answer = probe()
        if answer is True or (answer and not isinstance(answer, Difference)):
            return answer
        time.sleep(0.05)  # leaves the processor to those who are waited for
    raise SystemExit(f"waited in vain for {what}; last answer: {answer}")


class Difference(str):
    """What the page and the node do not agree on: an answer that is not yet the one waited for."""


class Origins(ThreadingHTTPServer):
    """Origins that answer 200, or 503 while their path is in `failing`."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.failing = {"/1", "/4"}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def list(self, count, path):
        interval = f"{max(300, count * 8)}ms"
        lines = ["[defaults]", f'interval = "{interval}"', "healthy_threshold = 1", "unhealthy_threshold = 1"]
        for number in range(count):
            name = HOSTILE if number == 2 else f"origin-{number}"
            url = f"http://127.0.0.1:{self.server_port}/{number}"
            if number == 3:
                url = "http://127.0.0.1:1/refuses"
            lines += ["[[origin]]", f"name = {json.dumps(name)}", f'url = "{url}"']
        path.write_text("\n".join(lines) + "\n")
        return path


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if self.path in self.server.failing else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Node:
    """A node in a process of its own."""

    def __init__(self, program, name, origins, seeds, http="127.0.0.1:0"):
        command = [program, "node", "--name", name, "--bind", "127.0.0.1:0", "--http", http]
        command += ["--origins", str(origins)]
        for seed in seeds:
            command += ["--join", seed.bind]
        self.name = name
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        ready = json.loads(self.process.stdout.readline())
        self.bind, self.http = ready["bind"], ready["http"]

    def get(self, path):
        with OPEN(f"http://{self.http}{path}", timeout=DEADLINE) as answer:
            return json.load(answer)

    def origins(self):
        return self.get("/status.json")["origins"]

    def end(self, how):
        self.process.send_signal(how)
        return self.process.wait(DEADLINE)


class Browser:
    """A browser with one window, over WebDriver."""

    def __init__(self, driver, browser, directory):
        # Its messages go to a file, so that nobody has to read a pipe until it ends.
        log = pathlib.Path(directory, "driver.log")
        with log.open("w") as out:
            self.driver = subprocess.Popen([driver, "--port=0"], stdout=out, stderr=out)
        try:
            self.open(browser, directory, log)
        except BaseException:
            self.driver.kill()
            raise

    def open(self, browser, directory, log):
        started = lambda: re.search(r"successfully on port (\d+)", log.read_text())
        self.base = f"http://127.0.0.1:{wait_for('the WebDriver', started)[1]}"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        arguments += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        arguments += ["--disable-dev-shm-usage", "--window-size=1280,900", f"--user-data-dir={directory}/profile"]
        wish = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": browser, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self.ask("/session", {"capabilities": {"alwaysMatch": wish}})
        self.base += f"/session/{answer['sessionId']}"

    def ask(self, path, body, method="POST"):
        request = urllib.request.Request(self.base + path, json.dumps(body).encode(), method=method)
        request.add_header("content-type", "application/json")
        try:
            with OPEN(request, timeout=DEADLINE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"WebDriver {path}: {error.read().decode()}") from error

    def run(self, script, *arguments):
        return self.ask("/execute/sync", {"script": script, "args": arguments})

    def text(self, element):
        return self.run("return document.getElementById(arguments[0]).textContent", element)

    def table(self, element):
        """The cells of each row of a table's body, each as the texts of its visible leaves."""
        return self.run(
            """const leaves = (cell) => [...cell.querySelectorAll("*")]
                 .filter((leaf) => leaf.children.length === 0 && !leaf.hidden).map((leaf) => leaf.textContent);
               return [...document.getElementById(arguments[0]).tBodies[0].rows]
                 .map((row) => [...row.cells].map(leaves));""",
            element,
        )

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).click()", selector)

    def enter(self, element, text, event):
        script = """const field = document.getElementById(arguments[0]);
                    field.value = arguments[1];
                    field.dispatchEvent(new Event(arguments[2], { bubbles: true }));"""
        self.run(script, element, text, event)

    def command(self, name, **parameters):
        return self.ask("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def shot(self, path, width, height, scheme, top=""):
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        wide = self.run("return document.documentElement.scrollWidth")
        assert wide <= width, f"the page is {wide} wide on a screen of {width}"
        self.run("(document.getElementById(arguments[0]) ?? document.body).scrollIntoView()", top)
        path.write_bytes(b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    def errors(self):
        log = self.ask("/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def end(self):
        try:
            self.ask("", {}, "DELETE")
        finally:
            self.driver.terminate()
            self.driver.wait(DEADLINE)


def same_members(page, node):
    """Whether the page shows the members that the node tells, and nobody else."""
    told = node.get("/members.json")
    want = sorted([row["name"], row["addr"], row["state"]] for row in told["members"])
    have = sorted([name[0], addr[0], state[0]] for name, addr, state, *_ in page.table("members"))
    words = {"dead": "failed", "left": "left"}
    gone = sorted([row["name"], row["addr"], words[row["state"]]] for row in told["former"])
    shown = sorted([name[0], addr[0], state[0]] for name, addr, state in page.table("former"))
    same = (want, gone) == (have, shown)
    return same or Difference(f"the node tells {want} {gone}, the page {have} {shown}")


def same_origins(page, node):
    """Whether every row of the page is what the node tells, and the sums are those of all rows."""
    told = {row["name"]: row for row in node.origins()}
    rows = page.table("origins")
    for (name, url), (state, *_, reason), (owner,), (checker,), *_ in rows:
        row = told[name]
        if [url, state, owner, checker] != [row["url"], row["state"], row["owner"], row["checker"] or "–"]:
            return Difference(f"the node tells {row}, the page {[name, url, state, owner, checker]}")
        if row["state"] == "down" and reason != row["reason"]:
            return Difference(f"{name} is down for {row['reason']}, the page says {reason}")
    if len(rows) != min(len(told), 100):
        return Difference(f"{len(rows)} rows of {len(told)}")
    for state in ["up", "down", "unknown"]:
        count = sum(row["state"] == state for row in told.values())
        if page.text(f"sum-{state}") != f"{count:,}":
            return Difference(f"{count} are {state}, the page says {page.text(f'sum-{state}')}")
    owned = {name[0]: count[0] for name, _, _, _, count in page.table("members")}
    want = {name: f"{sum(row['owner'] == name for row in told.values()):,}" for name in owned}
    return owned == want or Difference(f"the members own {want}, the page says {owned}")


def wait_for_same(what, page, node):
    wait_for(f"the members on the page, {what}", lambda: same_members(page, node))
    wait_for(f"the origins on the page, {what}", lambda: same_origins(page, node))
    print(f"ok: the page is what the node tells, {what}", flush=True)


def row_of(page, origin):
    return next((row for row in page.table("origins") if row[0][0] == origin), None)


def calm(nodes, count):
    """Whether all nodes know all members, and every origin is known and told by its owner."""
    def settled(node):
        rows = node.origins()
        return len(node.get("/members.json")["members"]) == len(nodes) and len(rows) == count and all(
            row["state"] != "unknown" and row["checker"] == row["owner"] for row in rows
        )
    return all(settled(node) for node in nodes)


def check_tools(page, count):
    """Filter, state and order, as a reader uses them."""
    names = lambda: [row[0][0] for row in page.table("origins")]
    page.enter("filter", HOSTILE[:8].upper(), "input")
    wait_for("the filter", lambda: names() == [HOSTILE])
    assert page.run("return document.querySelectorAll('img').length") == 0, "a name became markup"
    page.enter("filter", "", "input")
    page.enter("wanted", "down", "change")
    wait_for("the filter by state", lambda: sorted(names()) == ["origin-1", "origin-3", "origin-4"])
    page.enter("wanted", "", "change")
    worst = lambda: len(names()) == min(count, 100) and set(names()[:3]) == {"origin-1", "origin-3", "origin-4"}
    wait_for("all origins, those that are down first", worst)
    page.click("[data-sort=name]")
    wait_for("the order of names", lambda: names() == sorted(names()) and names()[0] == HOSTILE)
    page.click("[data-sort=name]")
    wait_for("the reverse order", lambda: names() == sorted(names(), reverse=True))
    page.click("[data-sort=state]")
    print("ok: filter, state and order", flush=True)


def check(program, page, directory, shots, count):
    origins = Origins()
    path = origins.list(count, directory / "origins.toml")
    nodes = []
    try:
        for name in ["red", "green", "blue"]:
            nodes.append(Node(program, name, path, nodes))
        red, _, blue = nodes
        page.ask("/url", {"url": f"http://{red.http}/"})
        page.run("window.stays = true")
        wait_for("a cluster at rest", lambda: calm(nodes, count))
        wait_for("a live page", lambda: page.text("state") == "live")
        assert page.text("node") == "red"
        wait_for_same("at rest", page, red)
        check_tools(page, count)
        if shots:
            page.shot(shots / "light.png", 1280, 900, "light")
            page.shot(shots / "narrow.png", 390, 844, "light")
            page.shot(shots / "narrow-origins.png", 390, 844, "dark", "origins-title")

        origins.failing.add("/0")
        failed = lambda: (row := row_of(page, "origin-0")) and row[1][0] == "down" and row[1][-1] == "status 503"
        wait_for("origin-0 down on the page", failed)
        origins.failing.discard("/0")
        page.enter("filter", "origin-0", "input")
        wait_for("origin-0 up on the page", lambda: (row := row_of(page, "origin-0")) and row[1][0] == "up")
        page.enter("filter", "", "input")
        wait_for_same("after a failure and its end", page, red)

        blue.end(signal.SIGKILL)
        nodes.remove(blue)
        wait_for("blue among the former members", lambda: [row[0][0] for row in page.table("former")] == ["blue"])
        wait_for("a cluster at rest", lambda: calm(nodes, count))
        wait_for_same("after the death of a node", page, red)
        if shots:
            page.shot(shots / "dark.png", 1280, 900, "dark")
        assert page.errors() == [], "the console is empty"

        assert red.end(signal.SIGTERM) == 0, "an open page does not keep a node from stopping"
        nodes.remove(red)
        wait_for("the page to notice", lambda: page.text("state") == "reconnecting")
        red = Node(program, "red", path, nodes, red.http)
        nodes.append(red)
        wait_for("a live page again", lambda: page.text("state") == "live")
        wait_for("a cluster at rest", lambda: calm(nodes, count))
        wait_for_same("after the node came back", page, red)
        assert page.run("return window.stays") is True, "the page was never loaded anew"
        for node in nodes:
            assert node.end(signal.SIGTERM) == 0
    finally:
        for node in nodes:
            node.process.kill()
            node.process.wait()
        origins.shutdown()


def main():
    parser = argparse.ArgumentParser(description="Checks the status page in a real browser.")
    parser.add_argument("program")
    parser.add_argument("--shots", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--origins", type=int, default=30, metavar="N")
    wish = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        print("skipped: no browser")
        return
    if wish.shots:
        wish.shots.mkdir(parents=True, exist_ok=True)
    # A browser's last helper process may still write when the directory goes.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        page = Browser(driver, browser, directory)
        try:
            check(wish.program, page, pathlib.Path(directory), wish.shots, wish.origins)
        finally:
            page.end()
    print("passed")


if __name__ == "__main__":
    sys.exit(main())
