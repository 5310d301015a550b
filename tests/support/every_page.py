"""All pages, for the tests that every page must pass: a new one is a line in PAGES."""

from dataclasses import dataclass, field

from fixtures import make
from tests.support.server_process import ServerProcess, bearer

HOSTILE = "<img src=x onerror=alert(1)>\u202eمستخدم'\"&" + "x" * 120
USER = "<img src=x onerror=alert(1)>مستخدم"
METADATA = '{"<script>alert(1)</script>": "<img src=x onerror=alert(1)>", "title": "</pre><b>"}'
TRACE = "trace:._-" + "x" * 119  # the longest, of the strangest characters that are accepted


@dataclass
class Hostile:
    """What the service of these tests has: words of clients that would be markup, wherever a client can put words."""

    words: str = HOSTILE
    jobs: dict[str, str] = field(default_factory=dict)  # {status: job ID}
    images: dict[str, str] = field(default_factory=dict)  # {status: image ID}


@dataclass(frozen=True)
class Shown:
    """A page. `path` may name {completed} and {failed}, the IDs of jobs; `says`: hostile words must be seen on it.

    `ready`: what is there once its script has run. `part`: a selector of what differs from the page without a query.
    """

    path: str
    says: bool = False
    ready: str = "main h1"
    signed_in: bool = True
    part: str = "html"

    def of(self, hostile: Hostile) -> str:
        return self.path.format(**hostile.jobs)


PAGES = {
    "overview": Shown("/dashboard", says=True, ready="#live:visible"),
    "overview, day": Shown("/dashboard?range=day", says=True, ready="#live:visible", part="[data-key='work']"),
    "overview, week": Shown("/dashboard?range=week", says=True, ready="#live:visible", part="[data-key='work']"),
    "jobs": Shown("/dashboard/jobs", says=True),
    "jobs that failed": Shown("/dashboard/jobs?status=failed&user=%3Cb%3E&from=x", says=False),
    "a job": Shown("/dashboard/jobs/{completed}", says=True),
    "a failed job": Shown("/dashboard/jobs/{failed}", says=True),
    "no such job": Shown("/dashboard/jobs/%3Cb%3E"),
    "pictures": Shown("/dashboard/images", says=True, ready="text=onerror"),
    "storage tasks": Shown("/dashboard/care"),
    "webhooks": Shown("/dashboard/care/webhooks"),
    "keys": Shown("/dashboard/care/keys"),
    "users": Shown("/dashboard/care/users", says=True),
    "sign-in": Shown("/dashboard/login", ready="#enter:enabled", signed_in=False),
    "sign-in for a page": Shown("/dashboard/jobs?q=%3Cb%3E", ready="#enter:enabled", signed_in=False),
    "error codes": Shown("/errors", signed_in=False),
    "an error code": Shown("/errors/rate_limited", signed_in=False),
    "start": Shown("/", signed_in=False),
    "documentation": Shown("/docs", ready=".opblock-tag-section", signed_in=False),
}


def filled(server: ServerProcess) -> Hostile:
    """A completed and a failed job whose client has put markup into every word that it may choose."""
    hostile = Hostile()
    whole = make.jpeg(320, 200)
    for status, data in (("completed", whole), ("failed", whole[: len(whole) // 2])):
        answer = server.http.post(
            f"{server.url}/api/v1/images/upload",
            headers={**bearer(USER), "X-Trace-ID": TRACE},
            data={"bucket": "odd.bucket-_/with/" + "x" * 60, "metadata": METADATA},
            files={"file": (f"{HOSTILE[:200]}.jpg", data, "image/jpeg")},
        )
        assert answer.status_code == 202, answer.text
        job = server.job_ended(answer.json()["job_id"])
        assert job["status"] == status, job
        hostile.jobs[status], hostile.images[status] = job["job_id"], job["image_id"]
    return hostile
