"""Signatures: verified by another implementation, and the example of the specification."""

from __future__ import annotations

import base64
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook, WebhookVerificationError

from collab.webhooks.signing import make_secret, read_secret, sign
from tests.support.webhooks import OTHER, SECRET

BODY = b'{"type":"document.changed"}'


def test_the_example_of_the_specification_is_signed_alike() -> None:
    key = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_secret_verifies_and_no_other() -> None:
    secrets = [SECRET, OTHER, make_secret()]
    headers = sign([read_secret(secret) for secret in secrets], "evt_1", int(time.time()), BODY)
    for secret in secrets:
        assert Webhook(secret).verify(BODY, headers) == {"type": "document.changed"}
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(BODY + b" ", headers)
        for name, value in (("webhook-id", "evt_2"), ("webhook-timestamp", str(int(time.time()) + 1))):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(BODY, {**headers, name: value})
    with pytest.raises(WebhookVerificationError):
        Webhook(make_secret()).verify(BODY, headers)


def test_keys_sign_beside_secrets_as_the_specification_says() -> None:
    keys = [Ed25519PrivateKey.generate() for _ in range(2)]
    asked: list[bytes] = []

    def ed25519(text: bytes) -> list[bytes]:
        asked.append(text)
        return [key.sign(text) for key in keys]

    now = int(time.time())
    headers = sign([read_secret(SECRET)], "evt_1", now, BODY, ed25519)
    assert Webhook(SECRET).verify(BODY, headers) == {"type": "document.changed"}
    assert asked == [f"evt_1.{now}.".encode() + BODY]
    versions = [signature.partition(",") for signature in headers["webhook-signature"].split(" ")]
    assert [version for version, _, _ in versions] == ["v1", "v1a", "v1a"]
    for key, (_, _, signature) in zip(keys, versions[1:], strict=True):
        key.public_key().verify(base64.b64decode(signature, validate=True), asked[0])


def test_without_secrets_and_ed25519_keys_there_is_no_signature_of_this_kind() -> None:
    assert sign([], "evt_1", 7, BODY).keys() == {"webhook-id", "webhook-timestamp"}


def test_what_is_made_is_another_one_each_time_and_can_be_read() -> None:
    made = {make_secret() for _ in range(10)}
    assert len(made) == 10 and all(len(read_secret(secret)) == 32 for secret in made)
    assert read_secret(OTHER) == b"o" * 24 and read_secret(SECRET.rstrip("=")) == b"s" * 32


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "begins with whsec_"),
        ("c2VjcmV0", "begins with whsec_"),
        ("whsec_", "24 to 64 bytes"),
        ("whsec_c2VjcmV0", "24 to 64 bytes"),
        ("whsec_" + "A" * 88, "24 to 64 bytes"),
        ("whsec_not base64 at all, of some length", "is base64"),
        ("whsec_ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ", "is base64"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        read_secret(text)
    assert not text[6:] or text[6:] not in str(caught.value)
