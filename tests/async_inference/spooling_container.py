"""A container that answers with what it was sent, however long: the body goes to a file, and from there back."""

import os
import shutil
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._begin(0)

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        with tempfile.TemporaryFile() as body:
            while left:
                piece = self.rfile.read(min(left, PIECE))
                if not piece:
                    return
                body.write(piece)
                left -= len(piece)
            size = body.tell()
            body.seek(0)
            self._begin(size)
            shutil.copyfileobj(body, self.wfile, PIECE)

    def _begin(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    address = (os.environ["SAGEMAKER_BIND_TO_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"]))
    ThreadingHTTPServer(address, Handler).serve_forever()
