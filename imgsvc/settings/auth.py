"""Sections of access: the tokens of users, their permissions, and the operator."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from .fields import STRONG, AbsoluteUrl, Seconds, Section, Texts, setting
from .hosts import is_loopback

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"
]  # RFC 7518 section 3.1, RFC 8037 section 3.1
Lifetime = Annotated[int, Field(ge=0, le=86_400, json_schema_extra={"unit": "seconds"})]


def _no_pem(value: SecretStr) -> SecretStr:
    if value.get_secret_value().lstrip().startswith("-----BEGIN"):
        raise ValueError("is a PEM key, but a public key is no secret: see jwt_public_key and jwt_algorithm")
    return value


def _fits_a_header(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]*", value.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces, since it travels in a header")
    return value


SharedSecret = Annotated[SecretStr, AfterValidator(_no_pem), STRONG]
HeaderSecret = Annotated[SecretStr, AfterValidator(_fits_a_header), STRONG]


class Auth(Section):
    jwt_algorithm: Algorithm = setting(
        "HS256",
        "Algorithm of tokens: HS256, HS384, HS512 (with a secret), RS256, RS384, RS512, PS256, ES256, ES384 or EdDSA "
        "(with a public key: jwt_public_key or jwks_url). A token with another algorithm is refused.",
        env="JWT_ALGORITHM",
    )
    jwt_secret_key: SharedSecret = setting(
        SecretStr(""),
        "Secret for HS*, at least 32 bytes. Empty: a secret is created in the data folder (jwt_secret, mode 0600).",
        env="JWT_SECRET_KEY",
    )
    jwt_secret_key_previous: SharedSecret = setting(
        SecretStr(""),
        "While you change the secret: tokens made with this older one are accepted too; new tokens are not made with "
        "it.",
    )
    jwt_public_key: str = setting("", "A PEM file with the one public key of your issuer.")
    jwks_insecure: bool = setting(
        False,
        "true: jwks_url may be http on another machine, such as http://keycloak:8080 in a private network. Anyone who "
        "can change what travels there can make tokens.",
    )
    jwks_url: str = setting(
        "",
        "Address of the issuer's key set (RFC 7517), instead of jwt_public_key: https, or http on this machine.",
        env="AUTH_API_JWKS_URL",
        may_hold_password=True,
    )
    max_token_kb: int = setting(
        16, "Longer tokens are refused; [server] max_header_kb must be at least as large.", unit="KB", ge=1, le=1024
    )
    issuer: str = setting("", "Required value of a token's iss; empty: not checked.", env="AUTH_API_ISSUER_URL")
    audience: str = setting(
        "", "Value that a token's aud must be or contain; empty: not checked.", env="AUTH_API_AUDIENCE"
    )
    leeway_seconds: int = setting(
        0,
        "Tolerance for exp and nbf: 0 when one clock makes and checks tokens, 30 to 60 for an issuer on another "
        "machine.",
        unit="seconds",
        ge=0,
        le=600,
    )
    permissions: Literal["none", "claims", "remote"] = setting(
        "none",
        'Who may do what. "none": any valid token may upload, and delete its own images; "claims": the token\'s list '
        'permissions decides; "remote": the authorization server at api_url decides.',
        env="AUTH_PERMISSIONS",
    )
    api_url: AbsoluteUrl = setting(
        "",
        "Address of the authorization server, such as https://auth.example.org; a path prefix and user:password@ are "
        "allowed. It is called at {api_url}/api/v1/authorization/check.",
        env="AUTH_API_URL",
        may_hold_password=True,
    )
    api_timeout: Seconds = setting(
        5,
        "Time for one whole call of the authorization server; after that it counts as failed.",
        env="AUTH_API_TIMEOUT",
    )
    fail_open: bool = setting(
        False,
        "true: while the authorization server is unavailable, any user with a valid token may do everything (each "
        "time with a warning in the log); false: 503.",
        env="AUTH_FAIL_OPEN",
    )
    cache_enabled: bool = setting(
        True,
        "false: every request calls the authorization server; simultaneous identical questions still share one call.",
        env="AUTH_CACHE_ENABLED",
    )
    cache_ttl_read: Lifetime = setting(
        300, "How long to cache an allowed read, list, view or get; 0: not cached.", env="AUTH_CACHE_TTL_READ"
    )
    cache_ttl_write: Lifetime = setting(
        60,
        "How long to cache any other allowed action, such as an upload; 0: not cached.",
        env="AUTH_CACHE_TTL_WRITE",
    )
    cache_ttl_admin: Lifetime = setting(
        30, "How long to cache an allowed admin, delete or purge; 0: not cached.", env="AUTH_CACHE_TTL_ADMIN"
    )
    cache_ttl_denied: Lifetime = setting(120, "How long to cache a denial; 0: not cached.", env="AUTH_CACHE_TTL_DENIED")
    breaker_threshold: int = setting(
        5,
        "After this many failed calls in a row the authorization server is not called.",
        unit="calls",
        env="CIRCUIT_BREAKER_THRESHOLD",
        ge=1,
    )
    breaker_timeout: Seconds = setting(
        60, "Time until a single call tries the authorization server again.", env="CIRCUIT_BREAKER_TIMEOUT"
    )

    @field_validator("jwks_url")
    @classmethod
    def _asked_safely(cls, value: str, info: ValidationInfo) -> str:
        """A key set that could be changed on its way would let every token be forged."""
        url = _http_url(value) if value else None
        if url and (url.username or url.password):
            raise ValueError("must not hold a user name or password: a key set is public")
        insecure = info.data.get("jwks_insecure", False)
        if url and url.scheme != "https" and not insecure and not is_loopback(url.hostname or ""):
            raise ValueError(
                "must be https, unless it is asked on this machine (localhost, 127.0.0.1, [::1]), or in a private "
                "network with jwks_insecure = true (IMGSVC_AUTH_JWKS_INSECURE)"
            )
        return value

    @field_validator("api_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not _names_a_host(value):
            raise ValueError("must be empty or an absolute http(s) URL without a query")
        return value

    @property
    def own_keys(self) -> bool:
        """Whether tokens are signed with a secret that this service has, so that it can make some."""
        return self.jwt_algorithm.startswith("HS")

    @model_validator(mode="after")
    def _keys_go_with_the_algorithm(self) -> Self:
        algorithm = f"jwt_algorithm (JWT_ALGORITHM) = {self.jwt_algorithm!r}"
        given = [name for name in ("jwt_public_key", "jwks_url") if getattr(self, name)]
        if self.own_keys and given:
            raise ValueError(f"{algorithm} uses a secret: {given[0]} needs an algorithm with a public key, like RS256")
        if not self.own_keys and not given:
            raise ValueError(
                f"{algorithm} needs jwt_public_key (IMGSVC_AUTH_JWT_PUBLIC_KEY) or jwks_url (AUTH_API_JWKS_URL)"
            )
        if len(given) > 1:
            raise ValueError("jwt_public_key and jwks_url exclude each other: give one of them")
        if self.permissions == "remote" and not self.api_url:
            raise ValueError("permissions (AUTH_PERMISSIONS) = 'remote' needs api_url (AUTH_API_URL)")
        return self


class Operator(Section):
    token: HeaderSecret = setting(
        SecretStr(""),
        "Token for the dashboard, /metrics and the operator's API; at least 32 bytes. Empty: one is created in the "
        "data folder (operator_token, mode 0600).",
        env="OPERATOR_TOKEN",
    )
    public: bool = setting(
        False, "true: anyone may read the dashboard and /metrics, which name users.", env="OPERATOR_PUBLIC"
    )
    session_hours: float = setting(
        12,
        "How long a browser stays signed in. Another operator token, or a restore, ends all sessions.",
        unit="hours",
        gt=0,
        le=8760,
    )
    oidc_issuer: str = setting(
        "",
        "Issuer of your OpenID Connect provider, as its discovery document has it, such as "
        "https://auth.example.org/realms/home: people sign in to the dashboard there, beside the operator token. "
        "PUBLIC_URL must be set; allow {PUBLIC_URL}/dashboard/oidc/callback at the provider. Empty: off.",
    )
    oidc_client_id: str = setting("", "Client ID of this service at the provider.")
    oidc_client_secret: SecretStr = setting(SecretStr(""), "The client's secret; empty for a public client.")
    oidc_scopes: str = setting("openid email profile", "Scopes to ask the provider for, separated by spaces.")
    oidc_allowed: Texts = setting(
        (),
        "Who may sign in: email:ann@example.org (only if the provider has verified it), sub:1234 or group:admins. "
        "Empty: no user.",
    )
    oidc_groups_claim: str = setting("groups", "The claim that lists a person's groups.")

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str) -> str:
        """Anyone who can change what travels from the issuer could sign in as any user."""
        url = _http_url(value) if value else None
        if url and (url.username or url.password or url.query):
            raise ValueError("must have no user name, password or query")
        if url and url.scheme != "https" and not is_loopback(url.hostname or ""):
            raise ValueError("must be https, unless it is on this machine (localhost, 127.0.0.1, [::1])")
        return value

    @field_validator("oidc_scopes")
    @classmethod
    def _scopes(cls, value: str) -> str:
        if "openid" not in value.split():
            raise ValueError("must contain openid")
        return value

    @field_validator("oidc_allowed")
    @classmethod
    def _people(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            kind, _, name = one.partition(":")
            if kind not in ("email", "sub", "group") or not name:
                raise ValueError(f"{one!r} must be email:…, sub:… or group:…")
        return value

    @model_validator(mode="after")
    def _client_is_named(self) -> Self:
        if self.oidc_issuer and not self.oidc_client_id:
            raise ValueError("oidc_issuer needs oidc_client_id (IMGSVC_OPERATOR_OIDC_CLIENT_ID)")
        return self


def _names_a_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0  # reading an invalid port raises
    except ValueError:
        return False


def _http_url(text: str) -> SplitResult:
    """Its parts. Raises ValueError."""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.fragment or re.search(r"\s", text):
        raise ValueError("must be empty or an absolute http(s) URL")
    _ = url.port  # its ValueError names the value
    return url
