"""A small application on top of the service, written as the guides teach: a backend in Starlette and its page.

Its users upload by ticket from their browsers. Webhooks tell it which photos are there; it lists them, lets one expire,
and has the service forget a person.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from imgsvc.client import AsyncClient, WebhookInvalid, verify_webhook

BUCKET = "album"
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Album</title>
<link rel="icon" href="data:,">
<label>Photos <input type="file" accept="image/*" multiple></label>
<p id="said"></p>
<ul></ul>
<script type="module">
  import { Uploader } from "SERVICE/static/imgsvc.js";

  const uploader = new Uploader({ ticket: async () => (await fetch("/tickets", { method: "POST" })).json() });
  const say = (words) => { document.querySelector("#said").textContent = words; };

  document.querySelector("input").addEventListener("change", ({ target }) => {
    for (const file of target.files) {
      const image = document.querySelector("ul").appendChild(document.createElement("li")).appendChild(new Image());
      image.alt = file.name;
      const note = (word) => { image.dataset.seen = `${image.dataset.seen ?? ""} ${word}`.trim(); };
      uploader.upload(file, {
        metadata: { title: file.name },
        accepted: ({ imageId }) => { image.id = imageId; note("accepted"); },
        placeholder: ({ css }) => { image.style.background = css; note("placeholder"); },
        thumbnail: (url) => { image.src = url; note("thumbnail"); },
        completed: () => { note("completed"); },
        failed: (error) => { say(error.message); },
      });
    }
  });
</script>
"""


@dataclass
class Album:
    """The backend. `heard` are the messages of webhooks, each once, by their IDs."""

    service: str
    token: str
    operator: str
    secret: str
    user: str = "ann"
    heard: dict[str, tuple[str, str]] = field(default_factory=dict)  # {webhook-id: (type, image_id)}
    refused: int = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/tickets", self.ticket, methods=["POST"]),
                Route("/hooks", self.hook, methods=["POST"]),
                Route("/photos", self.photos),
                Route("/photos/{image_id}/expire", self.expire, methods=["POST"]),
                Route("/account", self.forget, methods=["DELETE"]),
            ]
        )

    async def page(self, _: Request) -> Response:
        return HTMLResponse(PAGE.replace("SERVICE", self.service))

    async def ticket(self, _: Request) -> Response:
        async with httpx.AsyncClient(base_url=self.service) as client:
            wanted = {"bucket": BUCKET, "max_bytes": 2_000_000, "metadata": {"by": self.user}}
            headers = {"Authorization": f"Bearer {self.token}"}
            answer = await client.post("/api/v1/images/tickets", json=wanted, headers=headers)
        return JSONResponse(answer.json(), answer.status_code)

    async def hook(self, request: Request) -> Response:
        try:
            message = verify_webhook(await request.body(), request.headers, self.secret)
        except WebhookInvalid:
            self.refused += 1
            return Response(status_code=400)
        self.heard.setdefault(message.id, (message.type, message.data["image_id"]))
        return Response(status_code=204)

    async def photos(self, _: Request) -> Response:
        async with AsyncClient(self.service, self.token) as client:
            listed = [one async for one in client.images(bucket=BUCKET)]
        return JSONResponse([dict(one.raw) for one in listed])

    async def expire(self, request: Request) -> Response:
        """In a second or two."""
        moment = datetime.now(UTC) + timedelta(seconds=1)
        async with AsyncClient(self.service, self.token) as client:
            changed = await client.update(request.path_params["image_id"], expires_at=moment.isoformat())
        return JSONResponse({"expires_at": changed["expires_at"]})

    async def forget(self, _: Request) -> Response:
        """Everything of this user, by the operator's API."""
        headers = {"Authorization": f"Bearer {self.operator}"}
        async with httpx.AsyncClient(base_url=f"{self.service}/api/v1/operator", headers=headers) as client:
            report = (await client.delete(f"/users/default-org/{self.user}")).raise_for_status().json()
            while report["state"] == "running":
                await asyncio.sleep(0.05)
                report = (await client.get(f"/erasures/{report['erasure_id']}")).raise_for_status().json()
        return JSONResponse(report)
