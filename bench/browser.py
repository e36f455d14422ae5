"""Opens the interface in headless Chromium, each server in turn; run.py gives the plan on standard input and reads JSON.

Every load is a first one: an empty browser context, so nothing is cached.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

COMMAND = """exec chromium-headless-shell --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --ignore-certificate-errors --remote-debugging-pipe --user-data-dir="$1" 3<&"$2" 4>&"$3" """
QUIET, LONGEST = 1.0, 60  # seconds without a request, after which a page counts as loaded; seconds after which it failed
MEASURE = """JSON.stringify({
  load: performance.timing.loadEventEnd - performance.timing.navigationStart,
  paint: (performance.getEntriesByName("first-contentful-paint")[0] || {}).startTime,
  title: document.title,
  assets: performance.getEntriesByType("resource").filter(e => e.name.includes("/static-files/"))
    .map(e => ({path: new URL(e.name).pathname, end: e.responseEnd, bytes: e.transferSize}))})"""


class Browser:
    def __init__(self, profile):
        theirs_in, self.to = os.pipe()
        self.source, theirs_out = os.pipe()
        self.process = subprocess.Popen(
            ["bash", "-c", COMMAND, "-", profile, str(theirs_in), str(theirs_out)], pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL
        )
        os.close(theirs_in), os.close(theirs_out)
        self.rest, self.number, self.events = b"", 0, []
        os.set_blocking(self.source, False)

    def message(self, seconds):
        """The next message of the browser, or None when none comes in time."""
        deadline = time.monotonic() + seconds
        while b"\0" not in self.rest:
            try:
                piece = os.read(self.source, 1 << 20)
                if not piece:
                    sys.exit("Chromium ended")
                self.rest += piece
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.005)
        text, _nul, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def call(self, method, session=None, **params):
        self.number += 1
        os.write(self.to, json.dumps({"id": self.number, "method": method, "params": params, **({"sessionId": session} if session else {})}).encode() + b"\0")
        while True:
            message = self.message(LONGEST)
            if message is None:
                sys.exit(f"Chromium does not answer {method}")
            if message.get("id") == self.number:
                if "error" in message:
                    sys.exit(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def open(self, url, authorization):
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for method in "Page.enable", "Network.enable":
            self.call(method, session)
        self.call("Network.setExtraHTTPHeaders", session, headers={"Authorization": authorization})
        self.events.clear()
        self.call("Page.navigate", session, url=url)
        open_requests, loaded, last, start = {}, False, time.monotonic(), time.monotonic()
        while not (loaded and not open_requests and time.monotonic() - last > QUIET):
            if time.monotonic() - start > LONGEST:
                sys.exit(f"{url} was not loaded after {LONGEST} seconds; open: {list(open_requests.values())}")
            event = self.events.pop(0) if self.events else self.message(0.1)
            kind = (event or {}).get("method", "")
            if kind == "Page.loadEventFired":
                loaded = True
            elif kind == "Network.requestWillBeSent" and not event["params"]["request"]["url"].endswith(".worker.js"):  # whose end is told elsewhere
                open_requests[event["params"]["requestId"]] = event["params"]["request"]["url"][:200]
            elif kind in ("Network.loadingFinished", "Network.loadingFailed"):
                open_requests.pop(event["params"]["requestId"], None)
            if kind.startswith("Network."):
                last = time.monotonic()
        found = json.loads(self.call("Runtime.evaluate", session, expression=MEASURE)["result"]["value"])
        self.call("Target.disposeBrowserContext", browserContextId=context)
        if not found["assets"]:
            sys.exit(f"{url} is no MLflow: {found}")
        return found


def main():
    plan = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        found = {name: [] for name in plan["servers"]}
        for turn in range(plan["rounds"] + 1):
            for name, server in plan["servers"].items():
                result = browser.open(server["url"], server["authorization"])
                if turn:  # the first load warms browser and server
                    found[name].append(result)
        browser.process.kill()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
