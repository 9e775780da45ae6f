"""Forms are read as every other reader reads them, or refused."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto.errors import ArgumentError
from ducto.middleware.providers import OpenAIImages, OpenAITranscriptions
from ducto.middleware.providers.forms import MAX_PARTS, FormFile, file_sizes, parse_form

TYPE = "multipart/form-data; boundary=b"


def part(name: str, value: str = "v", *, more: str = "", headers: str = "") -> str:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n{headers}\r\n{value}\r\n'


def form(*parts: str) -> bytes:
    return ("".join(parts) + "--b--\r\n").encode("latin-1")


def test_what_a_client_sends_is_read() -> None:
    request = httpx.Request(
        "POST",
        "http://x",
        data={"model": "gpt-image-1", "n": "2", "stream": "True", "prompt": "ça"},
        files=[("image[]", ("a.png", b"\r\n--" * 99)), ("image[]", ("b;\"'.png", b"")), ("mask", ("m", b"12345"))],
    )
    headers = [(b"Content-Type", request.headers["content-type"].encode())]
    fields = OpenAIImages().bind(model=None, headers=headers).parse(request.read())
    assert fields["model"] == "gpt-image-1"
    assert (fields["n"], fields["stream"], fields["prompt"]) == (2, True, "ça")
    assert sorted(file_sizes(fields, "image", "mask")) == [0, 5, 396]
    call = OpenAIImages().read_request(fields, body_bytes=1)
    assert (call.model, call.choices, call.images, call.stream) == ("gpt-image-1", 2, 3, True)


def test_json_is_read_where_the_route_takes_it() -> None:
    bound = OpenAIImages().bind(model=None, headers=[(b"content-type", b"application/json")])
    assert bound.parse(b'{"model": "m"}') == {"model": "m"}


@pytest.mark.parametrize(
    "body",
    [
        form(part("model"), part("model", "dear")),
        form(part("model", more='; name="dear"')),
        form(part("model", more="; name*=utf-8''dear")),
        form(part("model", headers='Content-Disposition: form-data; name="dear"\r\n')),
        form(part("model", headers="Content-Transfer-Encoding: base64\r\n")),
        form(part("model", headers="Content-Disposition : x\r\n")),
        form(part("model", headers="no header\r\n")),
        form(part('mo\\"del')),
        form(part("")),
        form(part("model", "\xff")),
        form("--b\r\nContent-Type: text/plain\r\n\r\nx\r\n"),
        form("--b\r\n\r\nx\r\n"),
        form("--b\nContent-Disposition: form-data; name=model\n\nx\n"),
        form("preamble\r\n", part("model")),
        form(part("model")) + b"epilogue",
        form(*(part(f"n{number}") for number in range(MAX_PARTS + 1))),
        part("model").encode(),
        form(part("a"), "--bb\r\n\r\n"),
        b"",
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(ArgumentError):
        parse_form(body, content_type=TYPE)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/mixed; boundary=b",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=b; boundary=c",
        "multipart/form-data; boundary=b, multipart/form-data; boundary=c",
        f"multipart/form-data; boundary={'b' * 71}",
    ],
)
def test_an_unclear_boundary_is_refused(content_type: str) -> None:
    headers = [(b"content-type", content_type.encode())]
    with pytest.raises(ArgumentError):
        OpenAITranscriptions().bind(model=None, headers=headers).parse(form(part("model")))


def test_two_content_types_are_refused() -> None:
    headers = [(b"content-type", TYPE.encode()), (b"content-type", b"application/json")]
    with pytest.raises(ArgumentError):
        OpenAIImages().bind(model=None, headers=headers).parse(form(part("model")))


def test_a_model_that_is_a_file_is_no_model() -> None:
    fields = parse_form(form(part("model", more='; filename="x"')), content_type=TYPE)
    assert fields == {"model": [FormFile(1)]}
    with pytest.raises(ArgumentError):
        OpenAIImages().read_request(fields, body_bytes=1)


@given(
    st.lists(st.sampled_from([part("model"), "--b", "\r\n", "--", "x", part("file", more='; filename="f"'), '"', ";"]))
)
@settings(max_examples=200, deadline=None)
def test_any_body_is_read_or_refused(pieces: list[str]) -> None:
    body = "".join(pieces).encode()
    try:
        fields = parse_form(body, content_type=TYPE)
    except ArgumentError:
        return
    assert all(isinstance(value, str | list) for value in fields.values())
