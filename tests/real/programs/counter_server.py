"""An ordinary web server that counts in memory: GET / gives 0, then 1, ...  It knows nothing of torpor."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Counter(BaseHTTPRequestHandler):
    count = 0

    def do_GET(self) -> None:
        body = f"{Counter.count}\n".encode()
        Counter.count += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Counter)
print("ready", flush=True)
server.serve_forever()
