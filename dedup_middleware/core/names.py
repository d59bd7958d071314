"""Which names mean what: noise, credentials, client addresses, secrets, and fields of one exchange.

Law: these lists are the package's only knowledge of names; docs/security.md shows them, and a test compares.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE_KEY = rb"[a-z0-9][a-z0-9_*/@-]{0,255}"
_TRACESTATE = re.compile(  # each member in one way only: a value ends in no blank, and blanks are not given back
    rb"(?:[ \t]*+(?:%b=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])?[ \t]*+(?:,|\Z)){1,32}"
    % _TRACESTATE_KEY
)
_B3 = re.compile(rb"[01d]|(?:[0-9a-f]{16}){1,2}-[0-9a-f]{16}(?:-[01d](?:-[0-9a-f]{16})?)?")
_HEX = re.compile(rb"(?:[0-9a-f]{16}){1,2}")
_FLAG = re.compile(rb"[01d]|true|false")
_AMAZON = re.compile(rb"(?:(?:Root|Self|Parent|Sampled|Lineage)=[A-Za-z0-9:.-]{1,100};? ?){1,5}")
_GOOGLE = re.compile(rb"[0-9a-f]{32}(?:/[0-9]{1,20})?(?:;o=[0-3])?")
_UBER = re.compile(rb"[0-9a-f]{1,32}:[0-9a-f]{1,16}:[0-9a-f]{1,16}:[0-9a-f]{1,2}")

NOISE: Final[dict[bytes, re.Pattern[bytes]]] = {
    b"traceparent": _TRACEPARENT,
    b"tracestate": _TRACESTATE,
    b"b3": _B3,
    b"x-b3-traceid": _HEX,
    b"x-b3-spanid": _HEX,
    b"x-b3-parentspanid": _HEX,
    b"x-b3-sampled": _FLAG,
    b"x-b3-flags": _FLAG,
    b"x-amzn-trace-id": _AMAZON,
    b"x-cloud-trace-context": _GOOGLE,
    b"uber-trace-id": _UBER,
    b"x-request-id": _REQUEST_ID,
    b"request-id": _REQUEST_ID,
    b"x-correlation-id": _REQUEST_ID,
    b"correlation-id": _REQUEST_ID,
    b"x-trace-id": _REQUEST_ID,
    b"x-amz-cf-id": re.compile(rb"[A-Za-z0-9_=-]{1,128}"),
    b"x-datadog-trace-id": re.compile(rb"[0-9]{1,20}"),
    b"x-datadog-parent-id": re.compile(rb"[0-9]{1,20}"),
    b"x-datadog-sampling-priority": re.compile(rb"-?[0-9]{1,2}"),
    b"sentry-trace": re.compile(rb"[0-9a-f]{32}-[0-9a-f]{16}(?:-[01])?"),
}
"""Request fields that say which request this is, not what it asks for; each only in its own grammar, matched whole."""

RELOAD: Final = re.compile(rb"no-cache|max-age=0|no-cache, *max-age=0|max-age=0, *no-cache", re.IGNORECASE)
"""What a browser's reload sends in Cache-Control and Pragma; a rule's ttl holds against it."""

NEVER_DROPPED: Final = frozenset(
    b"host range if-range transfer-encoding "
    b"content-type content-encoding content-language content-location etag last-modified".split()
)
"""Request fields on which every response depends: whose it is, which part, and how the request's body is to be read.

Of the body that is all the metadata that RFC 9110 s.8 knows (RFC 10008 s.2.7); its length the body says itself.
"""

ADDRESS_FIELDS: Final = frozenset(
    b"forwarded x-forwarded-for x-forwarded x-forwarded-client-ip forwarded-for x-original-forwarded-for x-real-ip "
    b"x-client-ip client-ip true-client-ip cf-connecting-ip cf-connecting-ipv6 cf-pseudo-ipv4 fastly-client-ip "
    b"fly-client-ip x-cluster-client-ip x-envoy-external-address x-envoy-peer-metadata-id x-azure-clientip "
    b"x-azure-socketip x-appengine-user-ip x-appengine-remote-addr x-remote-ip x-remote-addr remote-addr "
    b"x-originating-ip x-host-ip x-nf-client-connection-ip x-vercel-forwarded-for x-vercel-proxied-for "
    b"do-connecting-ip oxygen-buyer-ip wl-proxy-client-ip proxy-client-ip x-proxyuser-ip x-forwarded-port-client "
    b"incap-client-ip x-sucuri-clientip x-coming-from cdn-src-ip x-ip via-client-ip x-forwarded-by".split()
)
"""Fields in which proxies say where a request came from; they belong to the client's address."""

OVERRIDES: Final = frozenset(
    b"x-forwarded-host x-forwarded-proto x-forwarded-protocol x-forwarded-scheme x-forwarded-ssl x-forwarded-port "
    b"x-forwarded-prefix x-forwarded-path x-forwarded-server x-forwarded-uri x-original-host x-original-url "
    b"x-original-uri x-rewrite-url x-rewrite-uri x-http-method x-http-method-override x-method-override x-host "
    b"x-http-host-override x-host-override host-override x-url-scheme x-script-name x-proxy-host front-end-https "
    b"x-original-path x-original-method x-forwarded-url x-forwarded-method x-forwarded-https x-override-url "
    b"x-method x-scheme x-base-url x-real-host x-backend-host x-arr-ssl x-envoy-original-path "
    b"x-envoy-original-host x-arr-original-host cloudfront-forwarded-proto x-request-uri x-forwarded-host-original "
    b"x-gateway-host x-remote-host forwarded-host proxy-host request-uri base-url x-original-port x-port "
    b"x-appengine-https x-client-scheme x-edge-scheme fastly-ssl cf-visitor x-replaced-path x-custom-url".split()
)
"""Fields by which an app may be told another host, scheme, path or method: keyed even under `vary="origin"`."""

_CREDENTIALS: Final = frozenset(
    b"authorization proxy-authorization cookie cookie2 x-api-key api-key apikey x-apikey x-auth x-auth-token "
    b"x-access-token x-amz-security-token x-csrf-token x-xsrf-token x-csrftoken client-cert client-cert-chain "
    b"x-client-cert x-client-dn x-client-verify x-client-subject ssl-client-cert ssl-client-dn ssl-client-verify "
    b"ssl-client-s-dn ssl-client-i-dn x-ssl-client-s-dn x-ssl-client-i-dn x-ssl-client-dn x-ssl-client-verify "
    b"x-ssl-client-serial x-ssl-client-fingerprint x-ssl-issuer x-tls-client-subject x-forwarded-client-cert "
    b"x-forwarded-tls-client-cert x-forwarded-tls-client-cert-info x-arr-clientcert x-amzn-mtls-clientcert "
    b"x-amzn-mtls-clientcert-subject x-amzn-mtls-clientcert-leaf x-amzn-mtls-clientcert-serial-number "
    b"x-amzn-oidc-data x-amzn-oidc-accesstoken x-amzn-oidc-identity x-goog-authenticated-user-email "
    b"x-goog-authenticated-user-id x-goog-iap-jwt-assertion cf-access-jwt-assertion cf-access-client-id "
    b"cf-access-client-secret cf-access-authenticated-user-email x-ms-client-principal x-ms-client-principal-id "
    b"x-ms-client-principal-name x-ms-client-principal-idp remote-user remote-name remote-email remote-groups "
    b"x-remote-user x-forwarded-user x-forwarded-email x-forwarded-groups x-forwarded-preferred-username "
    b"x-authenticated-userid x-authenticated-user x-authenticated-scope x-credential-identifier "
    b"x-consumer-id x-consumer-username x-consumer-custom-id x-consumer-groups x-anonymous-consumer "
    b"x-userinfo x-endpoint-api-userinfo x-apigateway-api-userinfo x-pomerium-jwt-assertion x-pomerium-claim-email "
    b"x-oidc-claims x-vouch-idp-claims x-claims x-webauth-login tailscale-user-login tailscale-user-name "
    b"x-teleport-login x-spiffe-id x-sso x-saml-subject x-subject x-login x-grafana-id iv-creds iv-groups "
    b"sm-universalid smuniversalid x-parse-installation-id x-hasura-claims ocp-apim-subscription-key x-functions-key "
    b"x-shopify-customer x-delegation x-on-behalf-of x-guest x-device-id x-player x-member x-customer x-employee "
    b"x-workspace x-project x-team".split()
)
"""Fields that say who asks, listed by name; the words below find the rest."""

_CREDENTIAL_WORDS: Final = frozenset(
    b"auth token key user tenant account org session cert identity principal jwt assertion signature consumer role "
    b"group scope permission secret password otp actor dpop email username apikey impersonate authorization".split()
)
_WORD_BREAK = re.compile(rb"[-_]")

ANALYTICS_COOKIE = re.compile(rb"_ga(?:[ct]?_.*)?|_gat|_gid|_gcl_.*|_fbp|_hj(?:id|[A-Z].*)")
"""Cookies of page analytics: not identity, and hidden from the app."""
ANALYTICS_HINT = re.compile(rb"_(?:g[ac]|gid|fbp|hj)")

_SECRET = re.compile(
    r"(?:.*[-_.\[]|)(?:pass(?:word|wd|phrase|code)?|pwd|token|secret|api[-_]?key|auth|authorization|credentials?|"
    r"j?session(?:[-_]?id)?|phpsessid|sid|jwt|otp|pin|signature|sig|private[-_]?key|access[-_]?key|client[-_]?secret|"
    r"csrf|csrfmiddlewaretoken|xsrf|code[-_]?verifier|refresh|bearer|cvv|cvc|iban|ssn|card[-_]?number)"
    r"(?:s|[0-9]*)(?:[-_.\]].*|)|"
    # What a sign-in elsewhere brings back; as part of a name these words mean much else.
    r"code|ticket|assertion|saml[-_]?(?:request|response|art)",
    re.IGNORECASE | re.DOTALL,
)
_REMEMBERED: Final = 256
"""Characters of the longest name that a memo keeps."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization proxy-authentication-info "
    b"te trailer transfer-encoding upgrade".split()
)
"""Response fields of one connection: neither stored nor given to followers (RFC 9110 s.7.6.1, RFC 9111 s.3.1)."""

FOR_ALL: Final = frozenset({b"cache-control", b"vary"})
"""Response fields that say who may use it again: no connection's, even if Connection names them (RFC 9110 s.7.6.1)."""

ONE_EXCHANGE: Final = frozenset(
    b"x-request-id request-id x-correlation-id correlation-id x-trace-id traceresponse traceparent server-timing "
    b"x-amzn-requestid x-amzn-trace-id x-cloud-trace-context x-amz-cf-id x-runtime x-process-time "
    b"x-response-time".split()
)
"""Response fields about one exchange: neither stored nor given to followers."""

CLIENT_STATE: Final = frozenset(b"set-cookie set-cookie2 clear-site-data".split())
"""Response fields that act on what the client keeps; a response may state that it is for all all the same."""

PERSONAL_FIELDS: Final = CLIENT_STATE | frozenset(
    b"authentication-info www-authenticate x-csrf-token "
    b"x-xsrf-token x-csrftoken csrf-token x-auth-token x-access-token x-refresh-token x-session-token "
    b"access-token refresh-token authorization x-amz-security-token x-new-token dpop-nonce x-subject-token "
    b"x-api-key session-id x-session-id sec-session-registration replay-nonce location-token "
    b"accept-signature-nonce".split()
)
"""Response fields that carry credentials or act on the client's own state: such a response is one caller's."""


def is_credential(name: str) -> bool:
    """Whether a request field (lower case) says who asks."""
    return _is_credential(name) if len(name) <= _REMEMBERED else _is_credential.__wrapped__(name)


@lru_cache(maxsize=4096)
def _is_credential(name: str) -> bool:
    text = name.encode("latin-1", "replace")
    # Apache's SSL_CLIENT_S_DN is one, too, and some servers read every underscore as a hyphen.
    listed = text.replace(b"_", b"-")
    if listed in _CREDENTIALS or listed.removesuffix(b"-id") in _CREDENTIALS or text == b"sec-token-binding":
        return True
    if text in (b"user-agent", b"idempotency-key") or text in ADDRESS_FIELDS or text.startswith(b"sec-"):
        return False
    return any(map(_says_who, _WORD_BREAK.split(text)))


def _says_who(word: bytes) -> bool:
    """Whether a word of a field's name makes it a credential: tokens, userid and accesstoken too."""
    one = b"identity" if word == b"identities" else word.removesuffix(b"s")
    return not _CREDENTIAL_WORDS.isdisjoint((word, one, one.removesuffix(b"id"))) or one.endswith(b"token")


def is_secret(name: str) -> bool:
    """Whether a query or body field of this name never stands in clear: password, token, secret, api_key..."""
    return len(name) > _REMEMBERED or _is_secret(name)  # what is no ordinary name is treated as one


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    return _SECRET.fullmatch(_CAMEL.sub("_", name)) is not None
