"""A document by http(s), asked for again every so often; one that is the same is not sent again.

By ETag and If-None-Match, else Last-Modified (RFC 9110, section 13). A few redirects are followed,
never from https to http, and no password or token goes to another host. What is too big, or comes
too slowly, is refused.
"""

from __future__ import annotations

import base64
import http.client
import random
import ssl
import time
import urllib.error
import urllib.request
from typing import IO, Any
from urllib.parse import urlsplit

from pywg.config.model import PeerSource
from pywg.errors import PywgError
from pywg.sources import tls
from pywg.sources.backoff import Backoff
from pywg.sources.news import Away, Hear, News, Same, Whole

SIZE_MAX = 64 << 20
#: For each wait of the socket, and for the whole document.
TIMEOUT_S, WHOLE_S = 10.0, 60.0
REDIRECTS = 3
#: What the one text is called.
NAME = "list"
_CHUNK = 1 << 16


class Url:
    """One document, which is one text to the follower."""

    def __init__(self, source: PeerSource) -> None:
        """Raises PywgError for certificates that cannot be used."""
        self._source = source
        self._etag = ""
        self._modified = ""
        handlers: list[urllib.request.BaseHandler] = [_Redirects(), urllib.request.ProxyHandler({})]
        made = tls.context(source)
        if made is not None:
            handlers.append(urllib.request.HTTPSHandler(context=made))
        self._opener = urllib.request.build_opener(*handlers)

    def run(self, hear: Hear) -> None:
        backoff = Backoff(random.random, self._source.interval_s)
        while True:
            news = self.look()
            hear(news)
            if isinstance(news, Away):
                time.sleep(backoff.next_s())
            else:
                backoff.succeeded()
                time.sleep(self._source.interval_s * random.uniform(0.9, 1.1))  # noqa: S311

    def look(self) -> News:
        try:
            request = urllib.request.Request(self._source.place, headers=self._headers())  # noqa: S310
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return self._read(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 304 and (self._etag or self._modified):
                    return Same(self._etag or self._modified)
                return Away(f"it answered {error.code} {error.reason}")
        except urllib.error.URLError as error:
            return Away(_reason(error.reason))
        except (OSError, http.client.HTTPException, PywgError) as error:
            return Away(_reason(error))

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": "pywg", "Accept": "application/json, text/plain, */*"}
        if self._etag:
            headers["If-None-Match"] = self._etag
        elif self._modified:
            headers["If-Modified-Since"] = self._modified
        if self._source.token is not None:
            headers["Authorization"] = f"Bearer {tls.secret(self._source.token)}"
        elif self._source.login is not None:
            pair = ":".join(tls.login(self._source.login))
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return headers

    def _read(self, answer: Any) -> News:
        text = _bounded(answer, time.monotonic() + WHOLE_S)
        if text is None:
            return Away(f"its answer is longer than {SIZE_MAX} bytes")
        if not text.strip():
            return Away("its answer is empty: a list of no peers is []")
        self._etag = answer.headers.get("ETag", "")
        self._modified = answer.headers.get("Last-Modified", "")
        return Whole({NAME: text}, self._etag or self._modified)


def _bounded(answer: IO[bytes], limit: float) -> str | None:
    """None for too much of it. Raises OSError when it takes too long, or ends too early."""
    data = bytearray()
    while chunk := answer.read(_CHUNK):
        data += chunk
        if len(data) > SIZE_MAX:
            return None
        if time.monotonic() > limit:
            raise TimeoutError(f"not done after {WHOLE_S:.0f} s")
    return data.decode("utf-8", errors="replace")


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = REDIRECTS
    max_repeats = 1

    def redirect_request(  # noqa: PLR0917 - as urllib calls it
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Raises URLError for a way that is not to be taken."""
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme, new.scheme) == ("https", "http"):
            raise urllib.error.URLError(f"it redirects to {new.scheme}, which is not followed")
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            made.headers.pop("Authorization", None)
        return made


def _reason(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message} (ca=FILE)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
