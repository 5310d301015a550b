"""Signing in with an OpenID Connect provider (OpenID Connect Core 1.0, authorization code with PKCE, RFC 7636).

The flow itself is authlib's. Here are the provider, which is discovered at the first use, and the sign-ins that are
under way: in memory, each bound to the browser that began it by a cookie, each good for one answer.
"""

import secrets
import ssl
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import structlog
from starlette.requests import Request
from starlette.responses import Response

from ...access.people import is_allowed, lacks_claims
from ...settings.auth import Operator

if TYPE_CHECKING:
    from authlib.integrations.starlette_client import StarletteOAuth2App

log = structlog.get_logger()

COOKIE = "imgsvc_sign_on"
PENDING_SECONDS = 600
MAX_PENDING = 1000  # sign-ins under way; beyond that the oldest is dropped
CALL_SECONDS = 5.0  # one call of the provider
SECONDS = 10.0  # all calls of one step
FRESH_SECONDS = 3600.0  # then the provider is discovered again
AWAY_SECONDS = 5.0  # after a failure: requests within this time fail at once
LEEWAY_SECONDS = 120  # between the provider's clock and this one
# Signatures by public keys. `none` is no signature, and a secret shared with the provider is not asked for.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class ProviderUnavailable(Exception):
    """The provider could not be used. The message gives the reason, for the log."""


class SignInRefused(Exception):
    """The provider's answer proves nothing. The message gives the reason, for the log."""


class SingleSignOn:
    def __init__(self, settings: Operator, redirect_uri: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.provider_name = urlsplit(settings.oidc_issuer).hostname or ""
        self._settings = settings
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._app: StarletteOAuth2App | None = None
        self._discovered = self._failed = float("-inf")
        self._discovering = anyio.Lock()
        self._pending: OrderedDict[str, tuple[float, dict[str, Any]]] = OrderedDict()

    async def begin(self, request: Request) -> tuple[Response, str]:
        """The redirect to the provider, and the cookie that binds the sign-in to this browser.

        Raises ProviderUnavailable.
        """
        app = await self._provider()
        session: dict[str, Any] = {}
        request.scope["session"] = session  # where authlib puts state, nonce and verifier
        redirect: Response = await app.authorize_redirect(request, self._redirect_uri)
        cookie = secrets.token_urlsafe(32)
        self._pending[cookie] = (self._clock() + PENDING_SECONDS, session)
        if len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        return redirect, cookie

    async def finish(self, request: Request) -> dict[str, Any]:
        """The claims of the person whom the provider has signed in. Raises SignInRefused, ProviderUnavailable."""
        end, session = self._pending.pop(request.cookies.get(COOKIE, ""), (float("-inf"), {}))
        if self._clock() >= end:
            raise SignInRefused("it was not begun in this browser, or too long ago")
        app = await self._provider()
        request.scope["session"] = session
        try:
            with anyio.fail_after(SECONDS):
                return await self._claims(app, request)
        except SignInRefused:
            raise
        except TimeoutError:
            raise ProviderUnavailable(f"no answer within {SECONDS:g} seconds") from None
        except Exception as error:  # of authlib, joserfc or the HTTP client: whatever the provider answers
            raise SignInRefused(f"{type(error).__name__}: {error}") from error

    def allows(self, claims: Mapping[str, Any]) -> bool:
        return is_allowed(claims, self._settings.oidc_allowed, self._settings.oidc_groups_claim)

    async def _claims(self, app: "StarletteOAuth2App", request: Request) -> dict[str, Any]:
        expected = {
            "iss": {"essential": True, "value": self._settings.oidc_issuer},
            "aud": {"essential": True, "value": self._settings.oidc_client_id},
        }
        token = await app.authorize_access_token(request, claims_options=expected, leeway=LEEWAY_SECONDS)
        claims = dict(token.get("userinfo") or {})
        if not claims.get("sub"):
            raise SignInRefused("the answer has no ID token")
        rules, groups = self._settings.oidc_allowed, self._settings.oidc_groups_claim
        if lacks_claims(claims, rules, groups) and app.server_metadata.get("userinfo_endpoint"):
            more = await app.userinfo(token=token)
            if more.get("sub") != claims["sub"]:  # OpenID Connect Core 5.3.2: else it may be about another person
                raise SignInRefused("the userinfo is about another subject than the ID token")
            claims = {**more, **claims}
        return claims

    async def _provider(self) -> "StarletteOAuth2App":
        """Discovered, and checked. Raises ProviderUnavailable."""
        async with self._discovering:
            if self._app and self._clock() - self._discovered < FRESH_SECONDS:
                return self._app
            if self._clock() - self._failed >= AWAY_SECONDS:
                try:
                    self._app, self._discovered = await self._discover(), self._clock()
                except ProviderUnavailable as error:
                    self._failed = self._clock()
                    log.warning("sign_on_provider_unavailable", issuer=self._settings.oidc_issuer, reason=str(error))
                    if self._app is None:
                        raise
            if self._app is None:
                raise ProviderUnavailable("it did not answer a moment ago")
            return self._app

    async def _discover(self) -> "StarletteOAuth2App":
        """OpenID Connect Discovery 1.0. Raises ProviderUnavailable."""
        from ...access.authorization_client import trusted_certificates  # with the HTTP client, at the first use

        app = _client(self._settings, await anyio.to_thread.run_sync(trusted_certificates))
        try:
            with anyio.fail_after(SECONDS):
                found = await app.load_server_metadata()
        except TimeoutError:
            raise ProviderUnavailable(f"no answer within {SECONDS:g} seconds") from None
        except Exception as error:  # of the HTTP client, or no JSON
            raise ProviderUnavailable(f"{type(error).__name__}: {error}") from error
        _check(found, self._settings)
        offered = found.get("id_token_signing_alg_values_supported", ["RS256"])
        found["id_token_signing_alg_values_supported"] = [name for name in offered if name in ALGORITHMS]
        methods = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self._settings.oidc_client_secret.get_secret_value() and "client_secret_basic" not in methods:
            app.client_kwargs["token_endpoint_auth_method"] = "client_secret_post"  # noqa: S105, a name of RFC 6749
        return app


def _check(found: Mapping[str, Any], settings: Operator) -> None:
    """Raises ProviderUnavailable. The issuer must be the one that was asked (Discovery 1.0 section 4.3)."""
    if found.get("issuer") != settings.oidc_issuer:
        raise ProviderUnavailable(f"it calls itself {found.get('issuer')!r}")
    scheme = urlsplit(settings.oidc_issuer).scheme
    for name in ENDPOINTS:
        if urlsplit(str(found.get(name, ""))).scheme not in ("https", scheme):
            raise ProviderUnavailable(f"its {name} is {found.get(name)!r}, which is not https")


def _client(settings: Operator, trusted: ssl.SSLContext) -> "StarletteOAuth2App":
    with warnings.catch_warnings():
        from authlib.deprecate import AuthlibDeprecationWarning  # its import sets a filter

        # authlib prefers httpx2 and says so at its import; a second HTTP client would be one more to keep.
        warnings.simplefilter("ignore", AuthlibDeprecationWarning)
        from authlib.integrations.starlette_client import OAuth
    secret = settings.oidc_client_secret.get_secret_value()
    kwargs = {
        "scope": settings.oidc_scopes,
        "code_challenge_method": "S256",
        "token_endpoint_auth_method": "client_secret_basic" if secret else "none",
        "timeout": CALL_SECONDS,
        "verify": trusted,
        "trust_env": False,
        "follow_redirects": False,
    }
    return OAuth().register(
        "provider",
        client_id=settings.oidc_client_id,
        client_secret=secret or None,
        server_metadata_url=settings.oidc_issuer.rstrip("/") + "/.well-known/openid-configuration",
        client_kwargs=kwargs,
    )
