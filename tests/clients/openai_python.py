"""openai-python against a real server: questions of four domains reach their specialists, streamed and not.

    pip install openai && python tests/clients/openai_python.py
"""

import openai

from server import binary, serve

QUESTIONS = {
    "law": "Can my landlord evict me without giving written notice?",
    "math": "What is the derivative of x^3 + 2x with respect to x?",
    "health": "What are the symptoms of iron deficiency anemia and how is it treated?",
    "computer-science": "Write a Python function that reverses a list in place.",
}


def check(client, domain, question):
    ask = dict(model="auto", messages=[{"role": "user", "content": question}], max_tokens=24, temperature=0)
    raw = client.chat.completions.with_raw_response.create(**ask)
    assert raw.headers["x-collegium-specialist"] == domain, (question, dict(raw.headers))
    assert raw.headers["x-collegium-domain"] == domain
    assert 0 < float(raw.headers["x-collegium-confidence"]) <= 1
    assert raw.headers["x-collegium-decision-id"]
    whole = raw.parse()
    text = whole.choices[0].message.content
    assert text.strip(), "an answer has text"
    assert whole.usage.prompt_tokens > 0 and whole.usage.completion_tokens > 0
    assert whole.choices[0].finish_reason in ("stop", "length")

    stream = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == text, "a stream and a whole answer are the same text"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert sum(1 for c in chunks if c.choices and c.choices[0].finish_reason) == 1
    print(f"{domain:18s} {raw.headers['x-collegium-confidence']}  {text[:70]!r}")


def main():
    with serve(binary()) as (base, _, _):
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
        for domain, question in QUESTIONS.items():
            check(client, domain, question)
        names = [m.id for m in client.models.list()]
        assert {"auto", "generalist", *QUESTIONS} <= set(names), names
        raw = client.completions.create(model="generalist", prompt="The law of", max_tokens=8, temperature=0)
        assert raw.choices[0].text
        try:
            client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])
            raise AssertionError("an unknown model must be refused")
        except openai.NotFoundError as error:
            assert error.code == "model_not_found", error
        # An abstention has an answer too.
        hello = client.chat.completions.with_raw_response.create(
            model="auto", messages=[{"role": "user", "content": "hi"}], max_tokens=4
        )
        assert hello.headers["x-collegium-domain"] == "none"
        assert hello.headers["x-collegium-specialist"] == "generalist"
    print("openai-python", openai.__version__, "ok")


if __name__ == "__main__":
    main()
