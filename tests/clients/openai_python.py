"""openai-python against a real server: questions of four domains reach their specialists, streamed and not; a
conversation of two topics stays, then moves; several answers with a seed and log probabilities.

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


def conversation(client):
    """Two topics: follow-ups stay with the first one's specialist, the second moves to its own; a correction moves too."""
    # What the user says, where it goes, and by which rules that may be.
    turns = [
        (QUESTIONS["law"], "law", ["classifier"]),
        ("ok, thanks!", "law", ["sticky", "classifier"]),
        ("Could you say that again in other words?", "law", ["sticky", "classifier"]),
        (QUESTIONS["math"], "math", ["classifier"]),
        ("and why?", "math", ["sticky", "classifier"]),
    ]
    for headers in ({}, {"x-session-id": "a"}):
        messages = []
        for said, domain, rules in turns:
            messages.append({"role": "user", "content": said})
            raw = client.chat.completions.with_raw_response.create(
                model="auto", messages=messages, max_tokens=8, temperature=0,
                extra_headers={"x-collegium-debug": "true", **headers},
            )  # fmt: skip
            assert raw.headers["x-collegium-specialist"] == domain, (said, dict(raw.headers))
            assert raw.headers["x-collegium-rule"] in rules, (said, dict(raw.headers))
            messages.append({"role": "assistant", "content": raw.parse().choices[0].message.content})

    # A tool loop is locked, whatever the result is about.
    call = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": QUESTIONS["health"]},
    ]
    decided = client.post("/route", body={"messages": messages}, cast_to=object)
    assert (decided["domain"], decided["rule"]) == ("math", "locked"), decided

    # Somebody knows better: the conversation moves, and does not come back.
    decision = raw.headers["x-collegium-decision-id"]
    client.post("/feedback", body={"decision_id": decision, "domain": "physics"}, cast_to=object)
    messages = [{"role": "user", "content": "Go on."}]
    route = client.post("/route", body={"messages": messages}, cast_to=object, options={"headers": {"x-session-id": "a"}})
    assert (route["domain"], route["rule"]) == ("physics", "sticky"), route
    print("conversation       law, law, law, math, math; locked; corrected")


def several(client):
    """Several answers with a seed, and log probabilities; whole and streamed are the same."""
    ask = dict(
        model="law", messages=[{"role": "user", "content": QUESTIONS["law"]}], max_tokens=20, temperature=1.2,
        seed=11, n=3, logprobs=True, top_logprobs=2,
    )  # fmt: skip
    whole = client.chat.completions.create(**ask)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2] and len(set(texts)) > 1, texts
    assert client.chat.completions.create(**{**ask, "n": 1}).choices[0].message.content == texts[0]
    for choice in whole.choices:
        tokens = choice.logprobs.content
        said = bytes(b for t in tokens for b in t.bytes or [])
        # Chance may leave half of a character in the middle.
        assert said.decode(errors="replace") == choice.message.content
        assert all(t.logprob <= 0 and len(t.top_logprobs) == 2 for t in tokens)
        assert all(t.top_logprobs[0].logprob >= t.top_logprobs[1].logprob for t in tokens)

    streamed, words, ends = [""] * 3, [b""] * 3, [None] * 3
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            for token in choice.logprobs.content if choice.logprobs else []:
                words[choice.index] += bytes(token.bytes or [])
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert streamed == texts and [w.decode(errors="replace") for w in words] == texts, (streamed, texts)
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert chunk.usage.completion_tokens == whole.usage.completion_tokens

    raw = client.completions.create(model="law", prompt="The law of", max_tokens=6, temperature=0, logprobs=2)
    scores = raw.choices[0].logprobs
    assert "".join(scores.tokens) == raw.choices[0].text
    assert all(p == top[t] for t, p, top in zip(scores.tokens, scores.token_logprobs, scores.top_logprobs))
    pieces = client.completions.create(
        model="law", prompt="The law of", max_tokens=6, temperature=0, logprobs=2, stream=True
    )
    offsets = [at for c in pieces if c.choices and c.choices[0].logprobs for at in c.choices[0].logprobs.text_offset]
    assert offsets == scores.text_offset, (offsets, scores.text_offset)
    for field, value in (("top_logprobs", 2), ("n", 9)):
        try:
            client.chat.completions.create(**{**ask, "logprobs": False, "top_logprobs": None, field: value})
            raise AssertionError(f"{field} = {value} must be refused")
        except openai.BadRequestError as error:
            assert error.param == field, error
    print(f"several answers    {texts[0][:40]!r} {texts[1][:40]!r}")


def main():
    with serve(binary()) as (base, _, _):
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
        for domain, question in QUESTIONS.items():
            check(client, domain, question)
        conversation(client)
        several(client)
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
