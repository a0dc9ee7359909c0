"""A server of files on this machine, with the faults that transfers have."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """`files`: path -> bytes, or (status, headers, bytes); `asked`: (path, headers) as they came.

    `cut`: how many bytes the next answers send before they break off, one by one; `ranges`,
    `tags`: whether parts are given, and versions named.
    """

    def __init__(self):
        self.files, self.asked, self.cut, self.ranges, self.tags = {}, [], [], True, True
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {
            "site": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        site = self.site
        site.asked.append((self.path, dict(self.headers)))
        status, headers, content = 404, {}, b""
        if self.path in site.files:
            found = site.files[self.path]
            status, headers, content = found if isinstance(found, tuple) else (200, {}, found)
        tag = f'"{hash(content)}"'
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if status == 200 and site.ranges and begin and self.headers.get("If-Range") == tag:
            first = int(begin[1])
            if first >= len(content):
                status, headers = 416, {"Content-Range": f"bytes */{len(content)}"}
                content = b""
            else:
                status = 206
                headers = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
                content = content[first:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if site.tags:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:site.cut.pop(0) if site.cut and status < 300 else None])
        self.close_connection = True
